"""The sections of an audit spec; `audit.spec` reads specs and fills in their defaults."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from underfire.audit.fields import LARGEST_SHARD as LARGEST_SHARD
from underfire.audit.fields import (
    MEASURES,
    Count,
    Filled,
    GateMeasure,
    Limited,
    Number,
    PerChannel,
    Seed,
    Share,
    Size,
    Sizes,
    Text,
    listed,
    number_as_text,
    short,
)
from underfire.audit.fields import NEEDS as NEEDS
from underfire.audit.fields import key_path as key_path
from underfire.audit.fields import number as number
from underfire.audit.values import Live
from underfire.catalog import Card, find

_SURROGATE = re.compile("[\ud800-\udfff]")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        """Refuse texts that no file of results can hold: those with lone surrogates."""
        for key, value in {**vars(self), **(self.model_extra or {})}.items():
            for text in [*value, *value.values()] if isinstance(value, dict) else listed(value):
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
    """A detector that scores clean and attacked images; in a spec, the name alone is enough.

    Attributes:
        aware: whether the attacks are also run by an attacker who knows the detector.
        learns_from: the labels of the attacks that a supervised detector learns from; None, which a complete spec never
            contains for one, stands for all that change the prediction.
        file: a detector that is fitted already, with its threshold, as `underfire detect fit` writes it.
    """

    kind = "detector"
    aware: bool = True
    file: Text | None = None
    learns_from: Annotated[list[Text], Filled] | None = None


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
    goal: Annotated[Text, BeforeValidator(number_as_text)] = "untargeted"
    interpreter: Annotated[InterpreterSpec, BeforeValidator(short("name"))] | None = None


class DefenseSpec(_Method):
    """A defence of a victim; in a spec, the name alone is enough."""

    kind = "defense"


class SourceSpec(_Strict):
    """A model that attacks are crafted on; in a spec, the URI alone is enough.

    Attributes:
        model: the model; None is the model of the audit, or the ensemble if there is one.
        ensemble: several models that attacks are crafted on together.
        fuse: what of the models of an ensemble is averaged, as in `underfire.models.ensemble`.
        weights: one positive number per model of an ensemble; none weighs all equally.
        resize_members: whether models made for another image size than the first get resized images.
        label: its name in the report.
    """

    model: Annotated[ModelSpec, BeforeValidator(short("uri"))] | None = None
    ensemble: Annotated[list[Annotated[ModelSpec, BeforeValidator(short("uri"))]], Limited] = []
    fuse: Literal["logits", "probabilities", "losses", "gradients"] = "logits"
    weights: Annotated[list[Annotated[float, Field(gt=0)]], Limited] = []
    resize_members: bool = False
    label: Text | None = None

    @property
    def models(self) -> list[ModelSpec]:
        """The models of a complete entry: one, or those of the ensemble."""
        return [self.model] if self.model is not None else self.ensemble

    @property
    def title(self) -> str:
        """The name in a report."""
        return str(self.label)


class VictimSpec(SourceSpec):
    """A model that the adversarial images of every source are shown to; in a spec, the URI alone is enough.

    Attributes:
        defenses: the defences in front of the model, in the order in which an image passes through them.
        resize: side in pixels to which the victim scales images; True is the size that the model states, False none.
        through: whether the attacks are also crafted through the defences.
        samples: draws of a random defence in each step of such an attack.
    """

    defenses: Annotated[list[Annotated[DefenseSpec, BeforeValidator(short("name"))]], Limited] = []
    resize: bool | Annotated[int, Field(ge=1, le=10_000)] = False
    through: bool = True
    samples: Annotated[Count, Field(ge=1)] = 10


class SampleSpec(_Strict):
    """The images that count for transfer: those that every source and every victim classifies correctly.

    Attributes:
        n: the number of images that are attacked, all of them such images, balanced over the classes; None attacks all
            images of the data, and counts those that every model classifies correctly.
        seed: the seed of the draw.
        hash: the hash of the sample that must be used, as a report states it.
        chosen: the places of the images in the data; a run fills in this and the following.
        looked: number of images that were classified to draw the sample.
        available: number of these that every model classifies correctly.
    """

    n: Annotated[Count, Field(ge=1)] | None = None
    seed: Seed = 0
    hash: Text | None = None
    chosen: list[int] | None = None
    looked: int = 0
    available: int = 0


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


class AuditSpec(_Strict):
    """The spec of a whole audit: everything that determines its results.

    Attributes:
        shard_size: the number of images in a cell; None, which the spec of a run never has, leaves it to the run.
        masking_shard_size: the same for the masking checks; no more than `shard_size`.
        held_out: clean images for the fits and the thresholds of detectors; None takes those that are not attacked.
        sources: the models that attacks are crafted on for the victims; none is the model itself if there are victims.
        victims: the models that the adversarial images are shown to; none is the model itself if there are sources.
        sample: the images that count for the victims.
        draws: how often a random victim is evaluated on each adversarial image.
        false_positive_rate: the share of clean images that a detector may flag; None, which a complete spec with
            detectors never contains, stands for the default.
    """

    model: Annotated[ModelSpec, BeforeValidator(short("uri"))]
    data: Annotated[DataSpec, BeforeValidator(short("uri"))]
    attacks: Annotated[list[Annotated[AttackSpec, BeforeValidator(short("name"))]], Filled]
    interpreters: Annotated[list[Annotated[InterpreterSpec, BeforeValidator(short("name"))]], Limited] = []
    measures: Annotated[list[Annotated[MeasureSpec, BeforeValidator(short("name"))]], Limited] = [
        MeasureSpec(name=m) for m in MEASURES
    ]
    detectors: Annotated[list[Annotated[DetectorSpec, BeforeValidator(short("name"))]], Limited] = []
    held_out: Annotated[DataSpec, BeforeValidator(short("uri"))] | None = None
    sources: Annotated[list[Annotated[SourceSpec, BeforeValidator(short("model"))]], Limited] = []
    victims: Annotated[list[Annotated[VictimSpec, BeforeValidator(short("model"))]], Limited] = []
    sample: Annotated[SampleSpec, BeforeValidator(short("n", int))] | None = None
    draws: Annotated[Count, Field(ge=1)] | None = None
    false_positive_rate: Annotated[Number, Field(gt=0, lt=1)] | None = None
    seeds: Annotated[list[Seed], Filled] = [0]
    gates: Annotated[list[GateSpec], Limited] = []
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
    "sources": SourceSpec,
    "victims": VictimSpec,
    "sample": SampleSpec,
}
"""The type of each section of a spec, by the key of the section; the spec itself has the key `""`."""
