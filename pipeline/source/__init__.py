"""The end that a guest leaves."""
