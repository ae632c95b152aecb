"""Measures what the host costs beside the device."""
