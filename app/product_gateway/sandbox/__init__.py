"""A gateway for tests of its clients, in one process."""
