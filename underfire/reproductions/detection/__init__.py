"""Experiments on detectors."""
