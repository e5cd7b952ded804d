"""Which pages of a guest are dirty: the trackers and the kernel's primitives under them."""
