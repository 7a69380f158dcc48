"""The reference and try-it-out pages."""
