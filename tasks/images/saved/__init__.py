"""The archive of `docker save` and `docker load`: read as a stream, written as a stream."""
