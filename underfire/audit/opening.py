"""Open the sources and victims of an audit: models, defences in front of them, and attacks through the defences."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from underfire import models
from underfire.audit.methods import values_of
from underfire.audit.named_files import with_files
from underfire.audit.schema import AuditSpec, ModelSpec, SourceSpec, VictimSpec
from underfire.audit.values import attributes, fingerprint, module
from underfire.defenses import Defended, defend, through
from underfire.defenses.defended import defenses_in
from underfire.errors import InputError
from underfire.hooks import unwrap
from underfire.model import Classifier

_DRAWN = ("generator", "seed")  # the attributes of a defence that its draws change


class Others:
    """The sources and victims of a spec, each model loaded when it is first asked for.

    Args:
        spec: a complete spec.
        model: its model, which is not loaded again where it is a source or a victim.
        given: models of a Python caller, by URI.
    """

    def __init__(self, spec: AuditSpec, model: Classifier, given: Mapping[str, Classifier]) -> None:
        self._device, self._given = spec.device, given
        self._models = {_as_text(spec.model): model}
        self._weights: dict[str, str] = {}
        self._defended: dict[str, Classifier] = {}

    def model(self, entry: SourceSpec) -> Classifier:
        """Return the model of a source or a victim, or its ensemble, without the defences of the spec.

        Raises:
            ModelError: a model cannot be loaded, or the models of an ensemble do not fit together.
        """
        members = [self._load(one) for one in entry.models]
        if entry.model is not None:
            return members[0]
        return models.ensemble(members, entry.fuse, weights=entry.weights or None, resize=entry.resize_members)

    def _load(self, stated: ModelSpec) -> Classifier:
        if stated.uri in self._given:
            return self._given[stated.uri]
        if (text := _as_text(stated)) not in self._models:
            self._models[text] = models.load(
                stated.uri, device=self._device, mean=stated.mean, std=stated.std, output=stated.output
            )
        return self._models[text]

    def weights(self, entry: SourceSpec) -> str:
        """Return a hash of a source, or of a victim with its defences, as `weights_of` does."""
        if (text := _without_label(as_victim(entry))) not in self._weights:
            self._weights[text] = weights_of(self.defended(entry))
        return self._weights[text]

    def identity(self, entry: SourceSpec) -> dict[str, Any]:
        """Return what determines the outputs of a source or a victim, as options of a cell."""
        entry = as_victim(entry)
        stated = entry.model_dump(exclude={"label", "through", "samples"})
        for plain in stated["defenses"]:
            del plain["label"]
        for plain in filter(None, [stated["model"], *stated["ensemble"]]):
            del plain["labels"]
        return with_files({"of": stated, "weights": self.weights(entry)}, *entry.defenses)

    def inner_weights(self, entry: SourceSpec) -> set[str]:
        """Return hashes of the models of a source or a victim, behind all defences and before any scaling of images."""
        return {weights_of(undefended(self._load(one))) for one in entry.models}

    def defended(self, entry: SourceSpec) -> Classifier:
        """Return a source, or a victim with its defences, for images of its own size."""
        entry = as_victim(entry)
        if (text := _without_label(entry)) not in self._defended:
            made = [partial(one.card.function, **values_of(one)) for one in entry.defenses]
            self._defended[text] = defend(self.model(entry), made)
        return self._defended[text]

    def open(self, entry: SourceSpec, seed: int = 0) -> Classifier:
        """Return a source, or a victim with its defences, whose random draws begin anew from a seed."""
        model = self.defended(entry)
        if isinstance(model, Defended) and model.random:
            model.redraw(seed)
        return resized(model, entry)

    def through(self, entry: VictimSpec, *, bpda: bool, seed: int = 0) -> Classifier:
        """Return a victim in the form in which an attack goes through its defences.

        Args:
            entry: the victim.
            bpda: whether defences without a useful gradient are replaced in the backward pass.
            seed: the seed of the random draws of the attacker.
        """
        model = self.defended(entry)
        return resized(through(model, bpda=bpda, samples=entry.samples if is_random(model) else 1, seed=seed), entry)


def as_victim(entry: SourceSpec) -> VictimSpec:
    """Return a source as a victim without defences, so that a model is opened and evaluated once in both roles."""
    return entry if isinstance(entry, VictimSpec) else VictimSpec(**entry.model_dump())


def undefended(model: Classifier) -> Classifier:
    """Return the classifier behind all defences."""
    while isinstance(model, Defended):
        model = model.undefended
    return model


def is_random(model: Classifier) -> bool:
    """Return whether two evaluations of a classifier on one image may differ."""
    return isinstance(model, Defended) and model.random


def weights_of(model: Classifier) -> str:
    """Return a hash of a model: its weights, its structure, and the source of layers that are not part of torch.

    Of a defended model, the defences count too, but not the state of their random draws.
    """
    shells = [part for part in model.modules() if isinstance(part, Classifier)]
    parts = [fingerprint((part.mean, part.std, part.domain)) for part in shells]
    defenses = defenses_in(model)
    for part in defenses:
        parts += [type(part).__qualname__, attributes(part, without=_DRAWN), fingerprint(dict(part.state_dict()))]
    plain = [part for part in shells if not isinstance(part, Defended)] if defenses else [model]
    return hashlib.sha256("\n".join((*parts, *(module(unwrap(part)) for part in plain))).encode()).hexdigest()


class _Resize(nn.Module):
    """Scale images to a height and width by bilinear interpolation with antialiasing, and classify them."""

    def __init__(self, model: Classifier, size: int) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[B, K]`."""
        scaled = F.interpolate(x, (self.size, self.size), mode="bilinear", align_corners=False, antialias=True)
        logits: Tensor = self.model(scaled.clamp(0, 1))
        return logits


def resized(model: Classifier, entry: SourceSpec) -> Classifier:
    """Return a classifier that scales images to the size of the victim; the model itself where none is asked for.

    Raises:
        InputError: the size is to be the model's own, and the model does not state it.
    """
    size = entry.resize if isinstance(entry, VictimSpec) else False
    if size is False:
        return model
    if size is True:
        if model.size is None:
            raise InputError("the model does not state the size of its images; give it in pixels, as in resize: 224")
        size = model.size[0]
    return Classifier(_Resize(model, size), labels=model.labels, domain=model.domain)


def seed_for(*parts: Any) -> int:
    """Return a seed that depends on `parts` alone."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16)


def _without_label(entry: SourceSpec) -> str:
    """Return what determines the model of a source or a victim, but for its weights, as text."""
    return entry.model_dump_json(exclude={"label", "resize", "through", "samples"})


def _as_text(model: ModelSpec) -> str:
    return model.model_dump_json(exclude={"labels"})
