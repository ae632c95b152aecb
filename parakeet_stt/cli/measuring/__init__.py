"""The commands that measure servers: `parakeet evaluate` and `parakeet bench`."""
