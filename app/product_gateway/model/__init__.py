"""Frozen values: syncs, catalog, merchants, webhooks. No I/O."""
