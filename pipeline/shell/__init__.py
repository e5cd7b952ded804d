"""What a person meets: the command line, the display, signals, logs."""
