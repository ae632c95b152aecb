"""The routes that take live speech."""
