"""A recording on its way to text: speech spans, utterances, words."""
