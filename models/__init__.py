"""The only code that imports torch, torchaudio, NeMo and Silero. Does not know HTTP or files that callers send."""
