"""Load images by URI: `load("cluttered-digits:", n=200)` returns a `Dataset`, which decodes images when indexed."""

from underfire.data.bounding_boxes import boxes
from underfire.data.dataset import Dataset
from underfire.data.images import read_image
from underfire.data.objects import from_objects
from underfire.data.uris import load

__all__ = ["Dataset", "boxes", "from_objects", "load", "read_image"]
