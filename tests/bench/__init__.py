"""Benchmarks, which are no tests: `make bench`."""
