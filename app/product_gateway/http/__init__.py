"""The HTTP server: protocol, limits, connections, responses."""
