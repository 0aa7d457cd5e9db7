"""The keys of an audit spec and the types of their values; `audit.spec` reads and completes one.

Sizes may be written as fractions: `eps: [2/255, 8/255]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_FRACTION = re.compile(r"\s*([-+]?[\d.]+)\s*/\s*([\d.]+)\s*")


def number(value: Any) -> Any:
    """Return `value` as a float if it reads as one (`"8/255"`, `"1e-3"`, `2`), and as it is otherwise.

    >>> number("51/255")
    0.2
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        fraction = _FRACTION.fullmatch(value) if isinstance(value, str) else None
        return float(fraction[1]) / float(fraction[2]) if fraction else float(value)
    except (ValueError, ZeroDivisionError):
        return value


def _short(key: str) -> Callable[[Any], Any]:
    """Return a validator that reads `text` as `{key: text}`."""
    return lambda value: {key: value} if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Size = Annotated[Number, Field(ge=0)]
Sizes = Annotated[list[Size], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]
PerChannel = Number | list[Number]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class ModelSpec(_Strict):
    """The classifier under test; a spec may give the URI alone."""

    uri: str
    mean: PerChannel | None = None
    std: PerChannel | None = None
    labels: list[str] | None = None


class DataSpec(_Strict):
    """The images; a spec may give the URI alone. `n` images are drawn at random by `seed`; None takes all."""

    uri: str
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class _Method(_Strict):
    """A name of the catalogue, and any keyword of the method itself."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    name: str
    label: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The keywords for the method itself."""
        return dict(self.model_extra or {})

    @property
    def title(self) -> str:
        """The name in a report: the label, or the name of the catalogue if no label was given."""
        return self.label or self.name


class InterpreterSpec(_Method):
    """An explanation to measure; a spec may give the name alone."""


class MeasureSpec(_Method):
    """A measure of perturbations or of maps; a spec may give the name alone."""


class AttackSpec(_Method):
    """An attack at one norm and one or several sizes.

    Attributes:
        norm: None in a file means the attack's first norm; it is never None in a complete spec.
        eps: sizes in the norm; empty in a file means the attack's default; never empty in a complete spec.
        goal: whether it wants any other class, a random one, or the one that the model finds least likely.
        interpreter: the explanation it is aimed at: the label of an interpreter of the spec, or a method of its own.
    """

    norm: str | None = None
    eps: Sizes = []
    goal: Literal["untargeted", "random-target", "least-likely"] = "untargeted"
    interpreter: Annotated[InterpreterSpec, BeforeValidator(_short("name"))] | None = None


GateMeasure = Literal["clean_accuracy", "robust_accuracy", "worst_accuracy", "map_iou"]
NEEDS: dict[GateMeasure, tuple[str, ...]] = {
    "clean_accuracy": (),
    "robust_accuracy": ("attack", "eps"),
    "worst_accuracy": ("norm", "eps"),
    "map_iou": ("attack", "eps", "interpreter"),
}
"""What the measure of a gate must be told."""


class GateSpec(_Strict):
    """A figure that must not be lower than `at_least`; `attack` and `interpreter` are labels of the spec."""

    measure: GateMeasure
    at_least: Number
    attack: str | None = None
    norm: str | None = None
    eps: Size | None = None
    interpreter: str | None = None


MEASURES = ("map_l1", "map_l2", "map_iou", "mass_inside")
"""The measures of an audit that names none."""


class AuditSpec(_Strict):
    """A whole audit: everything that determines its numbers."""

    model: Annotated[ModelSpec, BeforeValidator(_short("uri"))]
    data: Annotated[DataSpec, BeforeValidator(_short("uri"))]
    attacks: Annotated[list[Annotated[AttackSpec, BeforeValidator(_short("name"))]], Field(min_length=1)]
    interpreters: list[Annotated[InterpreterSpec, BeforeValidator(_short("name"))]] = []
    measures: list[Annotated[MeasureSpec, BeforeValidator(_short("name"))]] = [MeasureSpec(name=m) for m in MEASURES]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    gates: list[GateSpec] = []
    masking: bool = True
    gallery: Annotated[int, Field(ge=0)] = 8
    batch_size: Annotated[int, Field(ge=1)] = 64
    shard_size: Annotated[int, Field(ge=1)] = 64
    keep_gb: Size = 4.0
    device: str = "cpu"
    executor: Annotated[str, Field(pattern=r"^(auto|in-process|processes|ray|ray://[^\s/]+:\d+)$")] = "auto"


PARTS: dict[str, type[BaseModel]] = {
    "": AuditSpec,
    "model": ModelSpec,
    "data": DataSpec,
    "gates": GateSpec,
    "attacks": AttackSpec,
    "interpreters": InterpreterSpec,
    "measures": MeasureSpec,
}
"""The sections of a spec by the key that holds them."""


def key_path(*keys: str | int) -> str:
    """Return the path of a key, as in `attacks[0].eps`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
