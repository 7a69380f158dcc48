"""The operations port: health, metrics and the monitor."""
