"""Diarizers: networks that tell speakers apart."""
