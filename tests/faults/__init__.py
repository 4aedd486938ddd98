"""The run killed, cut off and interfered with at every step, then gone on with: `python -m tests.faults`."""
