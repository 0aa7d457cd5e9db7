"""Names of classes: read them from files, compare those of two sources, and make them printable."""

from underfire.classes.lists import imagenet, read_classes
from underfire.classes.names import are_numbers, check_names, listing, match, printable

__all__ = ["are_numbers", "check_names", "imagenet", "listing", "match", "printable", "read_classes"]
