"""Write norms, sizes with their units, and shares for readers, the same on the page and on the command line."""

from __future__ import annotations

_NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1", "l0": "L0"}
_UNITS = {
    "l0": "entries that change",
    "pixels": "pixels that change",
    "patch": "share of the image that the patch covers",
    "flow": "largest displacement, in pixels",
    "affine": "share of the stated ranges",
    "corner_case": "share of the stated ranges",
    "photometric": "share of the stated ranges",
}


def percent(share: float, digits: int = 0) -> str:
    r"""Return a share in per cent, with a space that no line break replaces.

    >>> percent(0.421), percent(0.421, 1)
    ('42\xa0%', '42.1\xa0%')
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def norm(name: str) -> str:
    """Return the name of a norm for a reader, such as `L∞` for `linf`."""
    return _NORMS.get(name, name)


def unit(norm_name: str) -> str:
    """Return the unit of eps in a norm, or for a change that is not additive.

    >>> unit("l2"), unit("flow")
    ('L2 size, pixels from 0 to 1', 'largest displacement, in pixels')
    """
    return _UNITS.get(norm_name, f"{norm(norm_name)} size, pixels from 0 to 1")


def size(norm_name: str, eps: float) -> str:
    """Format a size; write an L∞ size that is a whole or half number of grey levels as a fraction of 255.

    A size with at most two decimals, such as 0.1 (25.5 grey levels), is left as it is.

    >>> size("linf", 8 / 255), size("linf", 0.031), size("l2", 0.5), size("linf", 0.0), size("linf", 0.1)
    ('8/255', '0.031', '0.5', '0', '0.1')
    """
    levels, short = 255 * eps, round(eps, 2) == eps
    if norm_name == "linf" and 0 < eps <= 64 / 255 and abs(2 * levels - round(2 * levels)) < 1e-3 and not short:
        return f"{levels:.3g}/255"
    return f"{eps:.3g}"


def threat(norm_name: str, eps: float) -> str:
    """Format a norm with a size, such as `L∞ eps 8/255`."""
    return f"{norm(norm_name)} eps {size(norm_name, eps)}"
