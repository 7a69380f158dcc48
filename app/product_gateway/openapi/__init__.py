"""The binding of OpenAPI documents to handlers, through Connexion."""
