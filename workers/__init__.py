"""What one compress or decompress process does, and the pool that runs them."""
