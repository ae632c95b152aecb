"""Makes a network faster on a CPU; docs/decisions/0004-cpu-engine.md says what each measure gains."""
