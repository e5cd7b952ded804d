"""A process that knows nothing of us gets its memory tracked: two system calls are made in it."""
