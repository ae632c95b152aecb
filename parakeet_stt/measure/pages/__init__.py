"""What was measured, as one HTML file that needs nothing else."""
