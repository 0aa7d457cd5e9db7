"""Defences: functions `Classifier -> Classifier` that change what a classifier sees or how it answers.

A defended classifier raises where its gradient is of no use; `through` returns the form that gradient attacks need.
"""

from underfire.defenses.adaptive import through
from underfire.defenses.bit_depth import bit_depth
from underfire.defenses.comdefend import comdefend, train_comdefend
from underfire.defenses.crop_ensemble import crop_ensemble
from underfire.defenses.defended import Defended, Defense, Preprocessing, defended
from underfire.defenses.feature_distillation import feature_distillation
from underfire.defenses.hgd import hgd, train_hgd
from underfire.defenses.jpeg import jpeg
from underfire.defenses.n_version import NVersion, n_version
from underfire.defenses.naming import defend, named_defense
from underfire.defenses.nips_r3 import nips_r3
from underfire.defenses.non_local_means import non_local_means
from underfire.defenses.randomised_smoothing import Smoothed, randomised_smoothing
from underfire.defenses.resize_and_pad import resize_and_pad
from underfire.defenses.spatial_smoothing import spatial_smoothing
from underfire.defenses.total_variation import total_variation

__all__ = [
    "Defended",
    "Defense",
    "NVersion",
    "Preprocessing",
    "Smoothed",
    "bit_depth",
    "comdefend",
    "crop_ensemble",
    "defend",
    "defended",
    "feature_distillation",
    "hgd",
    "jpeg",
    "n_version",
    "named_defense",
    "nips_r3",
    "non_local_means",
    "randomised_smoothing",
    "resize_and_pad",
    "spatial_smoothing",
    "through",
    "total_variation",
    "train_comdefend",
    "train_hgd",
]
