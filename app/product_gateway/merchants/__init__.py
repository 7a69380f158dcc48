"""Administration of merchants."""
