"""The keys of an audit spec and the types of their values; `audit.spec` reads specs and fills in their defaults.

Sizes may be written as fractions: `eps: [2/255, 8/255]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from underfire.audit.values import Live
from underfire.catalog import Card, find

_SURROGATE = re.compile("[\ud800-\udfff]")
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


def _short(key: str) -> Callable[[Any], Any]:
    """Return a validator that replaces a text by `{key: text}`."""
    return lambda value: {key: value} if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(number), Field(allow_inf_nan=False)]
Size = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, Field(le=10**9)]

MOST_ENTRIES = 1000
"""The largest number of entries of a list in a spec, such as its attacks or the sizes of one."""
_Limited = Field(max_length=MOST_ENTRIES)
_Filled = Field(min_length=1, max_length=MOST_ENTRIES)


def _encodable(text: str) -> str:
    """Raise ValueError if a text has half a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("should be a text that UTF-8 can encode") from None
    return text


def _number_as_text(value: Any) -> Any:
    """Return a whole number as text, and any other value unchanged."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Text = Annotated[str, AfterValidator(_encodable)]
Sizes = Annotated[list[Size], BeforeValidator(lambda value: value if isinstance(value, list) else [value]), _Limited]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
PerChannel = Number | list[Number]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        """Refuse texts that no file of results can hold: those with lone surrogates."""
        for key, value in {**vars(self), **(self.model_extra or {})}.items():
            for text in [*value, *value.values()] if isinstance(value, dict) else _listed(value):
                if isinstance(text, str) and _SURROGATE.search(text):
                    raise ValueError(f"should have texts of valid Unicode, and {key} has {text[:40]!r}")
        return self


class ModelSpec(_Strict):
    """The classifier under test; in a spec, the URI alone is enough."""

    uri: Text
    mean: PerChannel | None = None
    std: PerChannel | None = None
    labels: list[Text] | None = None
    output: Text | Annotated[int, Field(ge=0, lt=1000)] | None = None


class DataSpec(_Strict):
    """The images: `n` of them, drawn at random by `seed`; None takes all. In a spec, the URI alone is enough.

    Attributes:
        classes: the names of the classes in the order of their labels, or a mapping from names in the data to others.
    """

    uri: Text
    n: Annotated[Count, Field(ge=1)] | None = None
    seed: Seed = 0
    classes: list[Text] | dict[Text, Text] | None = None


class _Method(_Strict):
    """A method of the catalogue by name, with options of the method as further keys."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    kind: ClassVar[str]
    name: Text
    label: Text | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the method."""
        return {key: value for key, value in (self.model_extra or {}).items() if key not in self.own}

    @property
    def own(self) -> dict[str, Any]:
        """The card of a function of a Python caller under the key `function`; empty for a method of the catalogue."""
        given = (self.model_extra or {}).get("function")
        return {"function": given} if isinstance(given, Live) and isinstance(given.value, Card) else {}

    @property
    def card(self) -> Card[Any]:
        """The card of the method, of the catalogue or of a function of a Python caller.

        Raises:
            InputError: the catalogue has no such method.
        """
        return self.own["function"].value if self.own else find(self.kind, self.name)

    @property
    def title(self) -> str:
        """The name of the entry in a report: its label, or without a label the name of the method."""
        return self.label or self.name


class InterpreterSpec(_Method):
    """An interpreter whose maps are measured; in a spec, the name alone is enough."""

    kind = "interpreter"


class MeasureSpec(_Method):
    """A measure of perturbations or of maps; in a spec, the name alone is enough."""

    kind = "measure"


class DetectorSpec(_Method):
    """A detector that scores clean and attacked images; in a spec, the name alone is enough."""

    kind = "detector"


class AttackSpec(_Method):
    """An attack at one norm and one or several sizes.

    Attributes:
        norm: the norm; None, which a complete spec never contains, stands for the attack's default.
        eps: the sizes, in the norm; an empty list, which a complete spec never contains, stands for the attack's
            default.
        goal: `"untargeted"` aims at any wrong class, `"random-target"` at a random one, `"least-likely"` at the class
            with the lowest logit; any other text is the name or the number of one class for all images.
        interpreter: the interpreter that the attack is aimed at: one of the spec, by label, or an entry of its own.
    """

    kind = "attack"
    norm: str | None = None
    eps: Sizes = []
    goal: Annotated[Text, BeforeValidator(_number_as_text)] = "untargeted"
    interpreter: Annotated[InterpreterSpec, BeforeValidator(_short("name"))] | None = None


GateMeasure = Literal["clean_accuracy", "robust_accuracy", "worst_accuracy", "map_iou", "interpretation_gap"]
NEEDS: dict[GateMeasure, tuple[str, ...]] = {
    "clean_accuracy": ("at_least",),
    "robust_accuracy": ("at_least", "attack", "eps"),
    "worst_accuracy": ("at_least", "norm", "eps"),
    "map_iou": ("at_least", "attack", "eps", "interpreter"),
    "interpretation_gap": ("at_most", "norm", "interpreter"),
}
"""The keys that a gate must have beside `measure`, by measure; a gap is the better the lower it is."""


class GateSpec(_Strict):
    """A figure of the audit that must be at least `at_least`, or for a gap at most `at_most`.

    `attack` and `interpreter` are labels of the spec. With `confident`, the end of the 95 % interval that is nearer to
    the limit must keep it, not only the estimate.
    """

    measure: GateMeasure
    at_least: Share | None = None
    at_most: Share | None = None
    attack: str | None = None
    norm: str | None = None
    eps: Size | None = None
    interpreter: str | None = None
    confident: bool = False


MEASURES = ("map_l1", "map_l2", "map_iou", "mass_inside")
"""The measures of an audit whose spec names none."""


LARGEST_SHARD = 64
"""The number of images in a cell of an audit whose spec states none, unless cells would take too long."""


class AuditSpec(_Strict):
    """The spec of a whole audit: everything that determines its results.

    Attributes:
        shard_size: the number of images in a cell; None, which the spec of a run never has, leaves it to the run.
        masking_shard_size: the same for the masking checks; no more than `shard_size`.
        held_out: clean images that detectors are fitted to and their thresholds chosen from; None takes images of the
            data that the audit does not attack.
        false_positive_rate: the share of clean images that a detector may flag; None, which a complete spec with
            detectors never contains, stands for the default.
    """

    model: Annotated[ModelSpec, BeforeValidator(_short("uri"))]
    data: Annotated[DataSpec, BeforeValidator(_short("uri"))]
    attacks: Annotated[list[Annotated[AttackSpec, BeforeValidator(_short("name"))]], _Filled]
    interpreters: Annotated[list[Annotated[InterpreterSpec, BeforeValidator(_short("name"))]], _Limited] = []
    measures: Annotated[list[Annotated[MeasureSpec, BeforeValidator(_short("name"))]], _Limited] = [
        MeasureSpec(name=m) for m in MEASURES
    ]
    detectors: Annotated[list[Annotated[DetectorSpec, BeforeValidator(_short("name"))]], _Limited] = []
    held_out: Annotated[DataSpec, BeforeValidator(_short("uri"))] | None = None
    false_positive_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    seeds: Annotated[list[Seed], _Filled] = [0]
    gates: Annotated[list[GateSpec], _Limited] = []
    masking: bool = True
    gallery: Annotated[Count, Field(ge=0)] = 8
    batch_size: Annotated[Count, Field(ge=1)] = 64
    shard_size: Annotated[Count, Field(ge=1)] | None = None
    masking_shard_size: Annotated[Count, Field(ge=1)] | None = None
    keep_gb: Size = 4.0
    device: Text = "cpu"
    executor: Annotated[str, Field(pattern=r"^(auto|in-process|processes|ray|ray://[^\s/]+:\d+)$")] = "auto"


PARTS: dict[str, type[BaseModel]] = {
    "": AuditSpec,
    "model": ModelSpec,
    "data": DataSpec,
    "gates": GateSpec,
    "attacks": AttackSpec,
    "interpreters": InterpreterSpec,
    "detectors": DetectorSpec,
    "held_out": DataSpec,
    "measures": MeasureSpec,
}
"""The type of each section of a spec, by the key of the section; the spec itself has the key `""`."""


def key_path(*keys: str | int) -> str:
    """Return the path of nested keys as text, such as `attacks[0].eps`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
