"""Restoring an archive: planned first, loaded beside what is there, checked, and only then put in its place."""
