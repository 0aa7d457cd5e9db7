"""Measure speed, memory and quality against a bare loop and other libraries: `make bench`."""
