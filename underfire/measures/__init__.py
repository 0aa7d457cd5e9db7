"""Measures: pure functions that quantify a perturbation, the success of an attack, and the quality of an explanation.

Every measure of the catalogue is available here by the name on its card, such as `underfire.measures.map_iou`. Measures
are batched, run on the device of their tensors, and return one value `[B]` per sample unless they say otherwise. A list
or a NumPy array stands for a tensor; anything else is an InputError. Float types narrower than float32 are widened
first. `higher_is_better` on a card is meant for those who rely on the model: if an attack needs a *larger*
perturbation, that is better. The values of a measure stay inside the `limits` on its card. Some measures call a model
or an interpreter: `model(x)` returns logits, `interpreter(model, x, y)` a map.
"""

from underfire.measures.agreement import map_kendall, map_rank_correlation, map_top_overlap
from underfire.measures.centre import map_centre_shift
from underfire.measures.curves import optimality
from underfire.measures.deletion_insertion import deletion, insertion
from underfire.measures.explanation import completeness_gap, seconds_per_image
from underfire.measures.fidelities import fidelity, fidelity_over_chance
from underfire.measures.gap import interpretation_gap
from underfire.measures.human import information_transfer_rate, trust_coefficient
from underfire.measures.localisation import localisation_iou, mass_inside, pointing_game
from underfire.measures.maps import map_iou, map_l1, map_l2
from underfire.measures.path_bound import map_change, map_change_bound
from underfire.measures.perturbation import in_box, l0, l0_pixels, l1, l2, linf
from underfire.measures.prediction import accuracy, confidence, margin, success
from underfire.measures.sanity import random_labels, random_weights
from underfire.measures.score_changes import infidelity
from underfire.measures.sensitivity import sensitivity_max
from underfire.measures.ssim import map_ssim
from underfire.measures.weak_localisation import localisation_error
from underfire.measures.weak_segmentation import segmentation_ap, segmentation_iou

__all__ = [
    "accuracy",
    "completeness_gap",
    "confidence",
    "deletion",
    "fidelity",
    "fidelity_over_chance",
    "in_box",
    "infidelity",
    "information_transfer_rate",
    "insertion",
    "interpretation_gap",
    "l0",
    "l0_pixels",
    "l1",
    "l2",
    "linf",
    "localisation_error",
    "localisation_iou",
    "map_centre_shift",
    "map_change",
    "map_change_bound",
    "map_iou",
    "map_kendall",
    "map_l1",
    "map_l2",
    "map_rank_correlation",
    "map_ssim",
    "map_top_overlap",
    "margin",
    "mass_inside",
    "optimality",
    "pointing_game",
    "random_labels",
    "random_weights",
    "seconds_per_image",
    "segmentation_ap",
    "segmentation_iou",
    "sensitivity_max",
    "success",
    "trust_coefficient",
]
