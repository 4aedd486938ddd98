"""What is known, pure: no I/O, no clock, no clients."""
