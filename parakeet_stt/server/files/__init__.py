"""The routes that take a file."""
