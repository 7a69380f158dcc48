"""The HTTP client for product services, webhooks and token issuers."""
