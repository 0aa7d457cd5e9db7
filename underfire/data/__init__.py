"""Load images by URI: `load("cluttered-digits:", n=200)` returns a `Dataset`, which decodes images when indexed."""

from underfire.data.dataset import Dataset, boxes
from underfire.data.images import read_image
from underfire.data.uris import load

__all__ = ["Dataset", "boxes", "load", "read_image"]
