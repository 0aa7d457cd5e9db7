"""Differentiable transforms of images: a camera, JPEG compression, blur, non-local means and squeezers."""
