"""Meaningful perturbations (Fong and Vedaldi, ICCV 2017): a mask that is optimised for each image."""

from underfire.interpreters.mask.game import MaskGame, mask_game
from underfire.interpreters.mask.mask import mask
from underfire.interpreters.mask.steps import mask_step

__all__ = ["MaskGame", "mask", "mask_game", "mask_step"]
