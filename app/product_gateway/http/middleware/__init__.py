"""ASGI middleware, one module for each concern."""
