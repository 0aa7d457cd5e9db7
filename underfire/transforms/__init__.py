"""Transforms of images that have a gradient: a camera, JPEG compression and blur."""
