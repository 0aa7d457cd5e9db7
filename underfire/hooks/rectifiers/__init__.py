"""Recognise a rectifier in every form in which a network may compute it: by its name, by a bound, by a comparison.

A rectifier is zero below zero (or a share of its input there) and its input above, up to a cap if it has one. Networks
spell it `relu(z)`, `z.clamp(min=0)`, `maximum(z, 0)`, `threshold(z, 0, 0)`, `where(z > 0, z, 0)`, `z * (z > 0)`,
`z.masked_fill(z < 0, 0)`, `(z + z.abs()) / 2` and more. Where the name does not tell, the values do.
"""

from underfire.hooks.rectifiers.calls import Rectifier, name_of
from underfire.hooks.rectifiers.recogniser import OTHERS, Recogniser

__all__ = ["OTHERS", "Recogniser", "Rectifier", "name_of"]
