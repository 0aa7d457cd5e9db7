"""Defences: functions `Classifier -> Classifier` that change what a classifier sees or how it answers.

A defended classifier raises where its gradient is of no use; `through` returns the form that gradient attacks need.
"""

from underfire.defenses.adaptive import through
from underfire.defenses.bit_depth import bit_depth
from underfire.defenses.defended import Defended, Defense, Preprocessing, defended
from underfire.defenses.jpeg import jpeg
from underfire.defenses.naming import defend, named_defense
from underfire.defenses.non_local_means import non_local_means
from underfire.defenses.resize_and_pad import resize_and_pad
from underfire.defenses.spatial_smoothing import spatial_smoothing

__all__ = [
    "Defended",
    "Defense",
    "Preprocessing",
    "bit_depth",
    "defend",
    "defended",
    "jpeg",
    "named_defense",
    "non_local_means",
    "resize_and_pad",
    "spatial_smoothing",
    "through",
]
