"""Experiments on trained robustness: networks are trained once, kept, and attacked."""
