"""The tests of underfire; what they share is in `tests.networks` and `tests.skips`."""
