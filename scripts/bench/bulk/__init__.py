"""Measures transcription in bulk: against the bare engine, over many actors, and of archives of other sizes."""
