"""Measures this engine on a CPU beside other runtimes on the same weights, in turn."""
