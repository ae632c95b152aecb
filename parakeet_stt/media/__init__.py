"""Media files to mono 16 kHz, in processes of their own."""
