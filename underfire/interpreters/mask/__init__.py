"""Meaningful perturbations (Fong and Vedaldi, ICCV 2017): a mask that is optimised for each image."""

from underfire.interpreters.mask.game import MaskGame, mask_game, mask_step
from underfire.interpreters.mask.mask import mask

__all__ = ["MaskGame", "mask", "mask_game", "mask_step"]
