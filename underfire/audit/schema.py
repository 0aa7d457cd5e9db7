"""The spec of a whole audit and its gates; `audit.sections` has its other sections, and `audit.spec` reads specs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from underfire.audit.fields import LARGEST_SHARD as LARGEST_SHARD
from underfire.audit.fields import (
    MEASURES,
    Count,
    Filled,
    GateMeasure,
    Limited,
    Number,
    Seed,
    Share,
    Size,
    Text,
    short,
)
from underfire.audit.fields import NEEDS as NEEDS
from underfire.audit.fields import key_path as key_path
from underfire.audit.fields import number as number
from underfire.audit.sections import AttackSpec as AttackSpec
from underfire.audit.sections import DataSpec as DataSpec
from underfire.audit.sections import DefenseSpec as DefenseSpec
from underfire.audit.sections import DetectorSpec as DetectorSpec
from underfire.audit.sections import InterpreterSpec as InterpreterSpec
from underfire.audit.sections import MeasureSpec as MeasureSpec
from underfire.audit.sections import ModelSpec as ModelSpec
from underfire.audit.sections import SampleSpec as SampleSpec
from underfire.audit.sections import SourceSpec as SourceSpec
from underfire.audit.sections import Strict
from underfire.audit.sections import VictimSpec as VictimSpec


class GateSpec(Strict):
    """A figure of the audit that must be at least `at_least`, or for a gap at most `at_most`.

    `attack` and `interpreter` are labels of the spec. With `confident`, the end of the 95 % interval that is nearer to
    the limit must keep it, not only the estimate.

    Attributes:
        measure: the figure that is limited.
        at_least: the lower limit.
        at_most: the upper limit, for a gap.
        attack: the label of the attack, for `robust_accuracy` and `map_iou`.
        norm: the norm, for `worst_accuracy` and `interpretation_gap`.
        eps: the size of the attack; None if there is only one.
        interpreter: the label of the interpreter, for `map_iou` and `interpretation_gap`.
        confident: whether the end of the 95 % interval must keep the limit, too.
    """

    measure: GateMeasure
    at_least: Share | None = None
    at_most: Share | None = None
    attack: str | None = None
    norm: str | None = None
    eps: Size | None = None
    interpreter: str | None = None
    confident: bool = False


class AuditSpec(Strict):
    """The spec of a whole audit: everything that determines its results.

    Attributes:
        model: the classifier under test.
        data: the images that are attacked.
        attacks: the attacks, each with its norm and its sizes.
        interpreters: the explanations that are computed for clean and for adversarial images.
        measures: the measures that get a column in the report.
        detectors: the detectors that score clean and adversarial images.
        seeds: everything random is repeated for each of them.
        gates: limits that decide the exit code.
        masking: whether the checks for masked gradients run.
        gallery: the number of images that the report shows, all of them classified correctly without an attack.
        batch_size: the number of images in one pass that computes only logits.
        keep_gb: the gigabytes of adversarial images and maps that stay on disk for later specs.
        device: where the model computes, such as `cpu` or `cuda`.
        executor: what computes the cells.
        shard_size: the number of images in a cell; None: the run chooses the number, and states it in its spec.
        masking_shard_size: the same for the masking checks; no more than `shard_size`.
        held_out: clean images for the fits and the thresholds of detectors; None takes those that are not attacked.
        sources: the models that attacks are crafted on for the victims; none is the model itself if there are victims.
        victims: the models that the adversarial images are shown to; none is the model itself if there are sources.
        sample: the images that count for the victims.
        draws: how often a random victim is evaluated on each adversarial image.
        false_positive_rate: the share of clean images that a detector may flag; None stands for the default, which the
            complete spec of a run with detectors states.
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
