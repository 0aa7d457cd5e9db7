"""Audit objects of a Python session."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from underfire.audit.labels import fit_labels, open_data
from underfire.audit.methods import interpreter_of
from underfire.audit.run import Event, run
from underfire.audit.spec import parse_spec
from underfire.audit.target import Target
from underfire.audit.templates import usual_methods
from underfire.data import from_objects
from underfire.errors import InputError
from underfire.hooks import frozen
from underfire.live.entries import method_entry, several
from underfire.live.models import class_names, classifier, plain
from underfire.live.others import other_entries
from underfire.live.results import Results
from underfire.model import Classifier
from underfire.validate import check_device

Method = str | Mapping[str, Any] | Callable[..., Any]


def audit(
    model: nn.Module | str,
    data: Any,
    attacks: Sequence[Method] | Method | None = None,
    interpreters: Sequence[Method] | Method | None = None,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    classes: Sequence[str] | Mapping[str, str] | None = None,
    n: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    sources: Any = None,
    victims: Any = None,
    progress: Callable[[Event], None] | None = None,
    **keys: Any,
) -> Results:
    """Audit a classifier on images, and return the results; this process computes all cells.

    A method is the name of a method of the catalogue; a mapping with its `name` and options, as in a spec; or a
    function, also inside a `functools.partial`. A function of your own takes `(model, x, y)` and returns adversarial
    images or maps; an attack gets `goal`, `norm`, `eps` and `generator` if it has parameters of these names, and the
    size that it must keep to is stated as `{"name": function, "norm": "linf", "eps": 8 / 255}`.

    Args:
        model: a `Classifier`, a module that maps images in `[0, 1]` to logits, or a URI.
        data: a `Dataset` or a `Batch`, a pair `(x, y)` of tensors, arrays or lists, a data set or a DataLoader of
            torch, or a URI (see `underfire.data.from_objects`).
        attacks: one attack or several; None takes usual ones, those of the template of `underfire init`.
        interpreters: one interpreter or several; None takes none, or with `attacks=None` usual ones that the model
            supports.
        mean: the normalisation of a module or of a URI, as in `Classifier`; a `Classifier` has its own.
        std: the normalisation, like `mean`.
        labels: names of the classes of a module or of a URI; a `Classifier` has its own.
        classes: names of the classes of the data in the order of their labels, or a mapping from names in the data to
            others; classes are compared with those of the model by name.
        n: number of images, drawn at random by `seed`; None takes all.
        seed: the seed of the draw.
        out: the run folder, where a later call finds finished cells; None uses a temporary folder, which is deleted
            with the result.
        device: where to compute; None is the device of the model.
        sources: models that attacks are crafted on; None is the model itself if there are victims.
        victims: models, with or without defences, that the adversarial images of every source are shown to: one or
            several models, URIs or entries of a spec, or a mapping from labels to them.
        progress: called with an `Event` before the first cell and after each cell.
        keys: other keys of a spec, such as `measures`, `seeds`, `gates`, `masking`, `gallery` or `shard_size`.

    Raises:
        InputError: a model, data, a method or a key is wrong; the message is one line.
    """
    if keys.get("executor", "auto") not in ("auto", "in-process"):
        raise InputError(f"objects are audited in this process only, got executor={keys['executor']!r}; use URIs")
    if device is not None:
        check_device(device)
    own = {"mean": mean, "std": std, "labels": labels}
    own_model = classifier(model, device, {key: value for key, value in own.items() if value is not None})
    names = class_names(classes)
    if isinstance(data, str):
        dataset = open_data(data, own_model, n=n, seed=seed, names=names)
    else:
        dataset = fit_labels(from_objects(data, n=n, seed=seed), own_model, names)
    place = str(own_model.mean.device) if device is None else device
    if attacks is None:
        usual = usual_methods(own_model, dataset[:2].to(place))
        attacks = usual.attacks
        if interpreters is None:
            interpreters, dataset = usual.interpreters, dataset.noted(*usual.notes)
    others: dict[str, Classifier] = {}
    entries = {"sources": other_entries(sources, device, others), "victims": other_entries(victims, device, others)}
    spec = parse_spec(
        {
            "model": {"uri": model if isinstance(model, str) else f"object:{type(model).__name__}", **plain(own)},
            "data": {"uri": dataset.name, "n": n, "seed": seed, "classes": names},
            "attacks": [method_entry("attack", method, own_model.domain) for method in several(attacks)],
            "interpreters": [method_entry("interpreter", method, own_model.domain) for method in several(interpreters)],
            "device": place,
            **entries,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()},
        }
    )
    interpreters_of = {entry.title: interpreter_of(entry) for entry in spec.interpreters}
    target = Target(spec, own_model, dataset, interpreters_of, others)
    folder = tempfile.mkdtemp(prefix="underfire-") if out is None else str(out)
    with ExitStack() as stack:
        for one in {id(model): model for model in (own_model, *others.values())}.values():
            stack.enter_context(frozen(one))
        results = Results(run(spec, folder, progress=progress, target=target))
    if out is None:
        weakref.finalize(results, shutil.rmtree, folder, ignore_errors=True)
    return results
