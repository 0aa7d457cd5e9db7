"""The sections of an audit spec that describe models, data and methods."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from underfire.audit.fields import (
    Count,
    Filled,
    Limited,
    PerChannel,
    Seed,
    Sizes,
    Text,
    listed,
    number_as_text,
    short,
)
from underfire.audit.values import Live
from underfire.catalog import Card, find

_SURROGATE = re.compile("[\ud800-\udfff]")


class Strict(BaseModel):
    """A section without further keys, whose values have the stated types."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        """Refuse texts that no file of results can hold: those with lone surrogates."""
        for key, value in {**vars(self), **(self.model_extra or {})}.items():
            for text in [*value, *value.values()] if isinstance(value, dict) else listed(value):
                if isinstance(text, str) and _SURROGATE.search(text):
                    raise ValueError(f"should have texts of valid Unicode, and {key} has {text[:40]!r}")
        return self


class ModelSpec(Strict):
    """The classifier under test; in a spec, the URI alone is enough.

    Attributes:
        uri: the model, in one of the forms of the page on models.
        mean: what the model subtracts from each channel of an image in [0, 1]; None is what its source states, or 0.
        std: what it then divides by; None is what its source states, or 1.
        labels: the names of the classes, in the order of the logits.
        output: how the logits are read from what the model returns: `logits`, `binary`, `probabilities`, the name of an
            entry, or its position; None finds it out.
    """

    uri: Text
    mean: PerChannel | None = None
    std: PerChannel | None = None
    labels: list[Text] | None = None
    output: Text | Annotated[int, Field(ge=0, lt=1000)] | None = None


class DataSpec(Strict):
    """The images: `n` of them, drawn at random by `seed`; None takes all. In a spec, the URI alone is enough.

    Attributes:
        uri: the data, in one of the forms of the page on data.
        n: the number of images; None takes all.
        seed: the seed of the draw of `n` images.
        classes: the names of the classes in the order of their labels, or a mapping from names in the data to others.
    """

    uri: Text
    n: Annotated[Count, Field(ge=1)] | None = None
    seed: Seed = 0
    classes: list[Text] | dict[Text, Text] | None = None


class _Method(Strict):
    """A method of the catalogue by name, with options of the method as further keys.

    Attributes:
        name: the name in the catalogue.
        label: the name in the report; None: a name made of the name and the options.
    """

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
        norm: the norm; None stands for the attack's default, which the complete spec in a report states.
        eps: the sizes, in the norm; an empty list stands for the attack's default, which the complete spec states.
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


class SourceSpec(Strict):
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


class SampleSpec(Strict):
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
