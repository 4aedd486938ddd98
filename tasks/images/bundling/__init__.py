"""Making a bundle of a release, and taking one in."""
