"""JSON from outside: limits on nesting, tolerant parsing, and errors in words."""
