"""Measures any server that speaks OpenAI's audio API: how accurate it is, and how it behaves under load.

The commands `parakeet evaluate` and `parakeet bench` use it, and scripts/bench. Needs the extra `measure`.
"""
