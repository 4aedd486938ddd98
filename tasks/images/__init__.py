"""OCI images: which repository holds a tag.  Transfer comes here too."""
