"""Experiments on transfer: attacks crafted once on each source and shown to every victim."""
