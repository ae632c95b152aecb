"""The command `parakeet`: each of its commands is a file or a folder here.

A command imports what it needs when it runs, so that `parakeet --help` answers at once.
"""
