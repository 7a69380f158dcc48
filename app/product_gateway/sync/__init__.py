"""The worker: claims syncs and pulls product services into the catalog."""
