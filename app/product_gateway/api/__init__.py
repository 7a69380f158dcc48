"""The implementation of openapi/product-gateway.yaml: handlers, error responses, long polls, cursors."""
