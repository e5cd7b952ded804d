"""Drivers: configuration, guests, tracking, the two ends of a migration, the command line."""
