"""Measures how well speakers are told apart, and what it costs, on synthetic conversations."""
