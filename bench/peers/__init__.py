"""Other implementations of the gateway's request path, on the same tables, with the same work."""
