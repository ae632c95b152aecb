"""Tests of parakeet_stt/bulk: without Ray but for test_pipeline.py."""
