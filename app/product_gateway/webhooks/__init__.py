"""Delivers signed messages to merchants' webhooks."""
