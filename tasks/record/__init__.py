"""What is told and kept about a run: its events, its report."""
