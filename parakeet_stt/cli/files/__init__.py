"""What `parakeet transcribe` is made of: sources → content → the API → outputs, with a journal beside them."""
