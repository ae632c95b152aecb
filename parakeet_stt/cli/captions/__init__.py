"""What `parakeet live` is made of: sound → a session of `/v1/realtime` → words."""
