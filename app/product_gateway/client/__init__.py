"""The client commands: a gateway over HTTP, for people and shell scripts."""
