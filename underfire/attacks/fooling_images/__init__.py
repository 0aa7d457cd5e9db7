"""Images that mean nothing and are classified with confidence."""

from underfire.attacks.fooling_images.attack import fooling_images, map_elites

__all__ = ["fooling_images", "map_elites"]
