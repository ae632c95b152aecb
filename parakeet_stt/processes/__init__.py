"""The programs of the service beside the fronts: each composes its parts, as service.py does for a front."""
