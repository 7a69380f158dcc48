"""A sample product service over a catalog file."""
