"""Fooling images: unrecognisable images that a model classifies with confidence."""

from underfire.attacks.fooling_images.attack import fooling_images, map_elites

__all__ = ["fooling_images", "map_elites"]
