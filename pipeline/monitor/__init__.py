"""How a person or a program drives a migration that runs: QMP, its commands, its events."""
