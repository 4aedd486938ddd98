"""OCI images: where they come from, where they are missing, and how only what is missing gets there."""
