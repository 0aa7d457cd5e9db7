"""The types of the fields of an audit spec.

Sizes may be written as fractions: `eps: [2/255, 8/255]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

_FRACTION = re.compile(r"\s*([-+]?[\d.]+)\s*/\s*([\d.]+)\s*")


def number(value: Any) -> Any:
    """Convert a number, its text or a fraction (`2`, `"1e-3"`, `"8/255"`) to float; return any other value unchanged.

    >>> number("51/255")
    0.2
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        fraction = _FRACTION.fullmatch(value) if isinstance(value, str) else None
        return float(fraction[1]) / float(fraction[2]) if fraction else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        return value


def short(key: str, kind: type = str) -> Callable[[Any], Any]:
    """Return a validator that replaces a value of a type, such as a text, by `{key: value}`."""
    return lambda value: {key: value} if type(value) is kind else value


Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Size = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(le=10**9)]

MOST_ENTRIES = 1000
"""The largest number of entries of a list in a spec, such as its attacks or the sizes of one."""
Limited = Field(max_length=MOST_ENTRIES)
Filled = Field(min_length=1, max_length=MOST_ENTRIES)


def _encodable(text: str) -> str:
    """Raise ValueError if a text has half a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("should be a text that UTF-8 can encode") from None
    return text


def listed(value: Any) -> list[Any]:
    """Return a list as it is, and any other value as a list of one."""
    return value if isinstance(value, list) else [value]


def number_as_text(value: Any) -> Any:
    """Return a whole number as text, and any other value unchanged."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, AfterValidator(_encodable)]
Sizes = Annotated[list[Size], BeforeValidator(listed), Limited]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
PerChannel = Number | list[Number]


MEASURES = ("map_l1", "map_l2", "map_iou", "mass_inside")
"""The measures of an audit whose spec names none."""


LARGEST_SHARD = 64
"""The number of images in a cell of an audit whose spec states none, unless cells would take too long."""


def key_path(*keys: str | int) -> str:
    """Return the path of nested keys as text, such as `attacks[0].eps`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


GateMeasure = Literal["clean_accuracy", "robust_accuracy", "worst_accuracy", "map_iou", "interpretation_gap"]
NEEDS: dict[GateMeasure, tuple[str, ...]] = {
    "clean_accuracy": ("at_least",),
    "robust_accuracy": ("at_least", "attack", "eps"),
    "worst_accuracy": ("at_least", "norm", "eps"),
    "map_iou": ("at_least", "attack", "eps", "interpreter"),
    "interpretation_gap": ("at_most", "norm", "interpreter"),
}
"""The keys that a gate must have beside `measure`, by measure; a gap is the better the lower it is."""
