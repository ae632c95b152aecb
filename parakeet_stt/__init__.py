"""The speech-to-text service around Parakeet: a pure core here, its shell in `server/`."""
