"""The conformance kit for product services: `product-gateway check-service`."""
