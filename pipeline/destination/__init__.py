"""The end that a guest comes to."""
