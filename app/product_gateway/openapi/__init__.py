"""Binds an OpenAPI document to handlers, through Connexion."""
