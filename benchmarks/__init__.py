"""Measure speed, memory and quality against bare loops and other libraries: `make bench`."""
