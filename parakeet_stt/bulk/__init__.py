"""Archives of recordings → tables of transcripts, over a Ray cluster or in one process.

entries.py names the recordings, reading.py cuts each into utterances in a CPU task, recognition.py decodes utterances
of many recordings together in an actor, rows.py makes the table, destination.py keeps it; pipeline.py puts them on Ray,
and losses.py counts the processes that it starts again. Only these two and run.py import Ray.
"""
