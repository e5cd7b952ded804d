"""What stands for the other end on this machine, where it is reached through a byte stream."""
