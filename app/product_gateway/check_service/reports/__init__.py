"""Reports of check-service: console, JUnit XML and JSON."""
