"""All SQL: the sync table, the catalog, merchants, webhooks and migrations."""
