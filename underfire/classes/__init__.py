"""Names of classes: read them from files, compare those of two sources, and make them printable."""

from underfire.classes.lists import imagenet, read_classes
from underfire.classes.names import are_numbers, check_names, class_number, listing, match, printable

__all__ = ["are_numbers", "check_names", "class_number", "imagenet", "listing", "match", "printable", "read_classes"]
