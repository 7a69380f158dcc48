"""Starts and stops the long-running services of a process."""
