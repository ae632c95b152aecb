"""The one thread that owns the device: batching, order, budget, admission."""
