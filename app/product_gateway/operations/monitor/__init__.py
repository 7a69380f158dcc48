"""The monitor: a live page over an API, for operators."""
