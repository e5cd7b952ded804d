"""What a user asks for: the model of a configuration, how it is read and checked."""
