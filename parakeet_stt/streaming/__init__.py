"""Live speech on its way to text: utterances, chunks, words."""
