"""Implements openapi/product-gateway.yaml: handlers, error responses, long poll, cursors."""
