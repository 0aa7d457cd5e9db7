"""Differentiable transforms of images: a camera, JPEG compression and blur."""
