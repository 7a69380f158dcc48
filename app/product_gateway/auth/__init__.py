"""Bearer tokens, the keys that verify them, and the keys of the data directory."""
