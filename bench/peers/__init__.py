"""Other ways to build the gateway's request path, on the same tables, doing the same work."""
