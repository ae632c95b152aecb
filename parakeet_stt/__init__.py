"""The speech-to-text service around Parakeet: a pure core here, its shell in `server/`."""

import os

# Read by libgomp when torch is loaded. Its threads otherwise spin for long where they wait for each other: beside other
# work on the same cores a batch took six times as long (docs/decisions/0004-cpu-engine.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
