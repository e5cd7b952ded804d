"""An unmodified QEMU as a guest: memory by us, device state by its own migration."""
