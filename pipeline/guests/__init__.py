"""The kinds of guest."""
