"""Audit objects of a Python session: `underfire.audit(model, data, attacks=[...])`."""

from __future__ import annotations

import html
import inspect
import os
import shutil
import sys
import tempfile
import weakref
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from underfire import report as reports
from underfire.audit.labels import fit_labels, open_data
from underfire.audit.ledger import TABLES, Ledger
from underfire.audit.methods import interpreter_of
from underfire.audit.run import Event, run
from underfire.audit.spec import parse_spec
from underfire.audit.summary import Findings, findings
from underfire.audit.target import Target
from underfire.audit.templates import usual_methods
from underfire.audit.values import Live
from underfire.catalog import AttackFacts, Card, InterpreterFacts, card_of
from underfire.data import from_objects
from underfire.domains import Domain
from underfire.errors import InputError, MissingExtra, ModelError, SpecError, nearest
from underfire.hooks import frozen
from underfire.model import Classifier
from underfire.models import load
from underfire.validate import check_device

if TYPE_CHECKING:
    import pandas

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
    classifier = _classifier(model, device, {key: value for key, value in own.items() if value is not None})
    names = _names(classes)
    if isinstance(data, str):
        dataset = open_data(data, classifier, n=n, seed=seed, names=names)
    else:
        dataset = fit_labels(from_objects(data, n=n, seed=seed), classifier, names)
    place = str(classifier.mean.device) if device is None else device
    if attacks is None:
        usual = usual_methods(classifier, dataset[:2].to(place))
        attacks = usual.attacks
        if interpreters is None:
            interpreters, dataset = usual.interpreters, dataset.noted(*usual.notes)
    spec = parse_spec(
        {
            "model": {"uri": model if isinstance(model, str) else f"object:{type(model).__name__}", **_plain(own)},
            "data": {"uri": dataset.name, "n": n, "seed": seed, "classes": names},
            "attacks": [_entry("attack", method, classifier.domain) for method in _several(attacks)],
            "interpreters": [_entry("interpreter", method, classifier.domain) for method in _several(interpreters)],
            "device": place,
            **{key: list(value) if isinstance(value, tuple) else value for key, value in keys.items()},
        }
    )
    target = Target(spec, classifier, dataset, {entry.title: interpreter_of(entry) for entry in spec.interpreters})
    folder = tempfile.mkdtemp(prefix="underfire-") if out is None else str(out)
    with frozen(classifier):
        results = Results(run(spec, folder, progress=progress, target=target))
    if out is None:
        weakref.finalize(results, shutil.rmtree, folder, ignore_errors=True)
    return results


class Results:
    """The results of an audit; a notebook shows them as the report page.

    Attributes:
        ledger: the tables of the run, which `ledger.sql` queries.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    @property
    def findings(self) -> Findings:
        """The figures of the run with their intervals, the masking checks, the gates and the verdict."""
        return findings(self.ledger)

    def frame(self, table: str = "rows") -> pandas.DataFrame:
        """Return a table of the ledger as a pandas DataFrame: `rows` has one row for each image, attack, size and seed.

        Raises:
            MissingExtra: pandas is not installed.
            InputError: there is no such table.
        """
        if table not in TABLES:
            raise InputError(f"there is no table {table!r}; {nearest(table, TABLES)}")
        try:
            import pandas  # noqa: F401 - to_pandas needs it
        except ImportError:
            raise MissingExtra("pandas") from None
        return self.ledger.table(table).to_pandas()

    def report(self, path: str | os.PathLike[str] = "report.html") -> Path:
        """Write the report as one self-contained HTML file, and return its path.

        Raises:
            InputError: the file cannot be written.
        """
        return reports.html(self.ledger, path)

    def show(self, height: int = 800) -> None:
        """Show the report: in the notebook, or else in the browser.

        Args:
            height: the height of the page in a notebook, in pixels.
        """
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            from IPython.display import HTML, display

            display(HTML(self._frame(height)))
            return
        page = self.report(Path(tempfile.mkdtemp(prefix="underfire-")) / "report.html")
        webbrowser.open(page.as_uri())

    def _repr_html_(self) -> str:
        return self._frame(800)

    def _frame(self, height: int) -> str:
        """Return the report as an HTML frame, so that its style and that of the notebook do not affect each other."""
        page = html.escape(reports.render(self.ledger))
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {height}px; border: 0"></iframe>'

    def __repr__(self) -> str:
        return f"<Results of {len(self.ledger.spec.attacks)} attacks: {self.findings.verdict}>"


def _plain(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a model as plain values, as a spec has them."""
    return {
        key: value if value is None or isinstance(value, (int, float)) else list(value) for key, value in own.items()
    }


def _names(classes: Any) -> list[str] | dict[str, str] | None:
    """Return names of classes as a spec has them, or raise InputError if they are none."""
    names = dict(classes) if isinstance(classes, Mapping) else classes if classes is None else list(classes)
    words = [*names, *(names.values() if isinstance(names, dict) else ())] if names is not None else []
    if isinstance(classes, str) or not all(isinstance(word, str) for word in words):
        raise InputError(f"classes must be a list of names or a mapping from names to names, got {classes!r:.80}")
    return names


def _classifier(model: Any, device: str | None, own: Mapping[str, Any]) -> Classifier:
    """Return a classifier with its own options, on `device` if that is given."""
    if isinstance(model, str):
        return load(model, device=device or "cpu", **own)
    if isinstance(model, Classifier) and own:
        raise ModelError(f"a Classifier has its own {', '.join(own)}; give these options to uf.Classifier")
    if not isinstance(model, nn.Module):
        advice = "wrap a function that names classes as uf.Oracle(function, classes=K)"
        raise ModelError(f"the model must be a module or a Classifier, got {type(model).__name__}; {advice}")
    classifier = model if isinstance(model, Classifier) else Classifier(model, **own)
    return classifier if device is None else classifier.to(device)


def _several(given: Any) -> Sequence[Any]:
    """Return one method or several, or None, as a list."""
    if given is None:
        return []
    return given if isinstance(given, (list, tuple)) else [given]


def _entry(kind: str, given: Any, domain: Domain) -> dict[str, Any]:
    """Return a method, given in any form, as an entry of a spec.

    Raises:
        SpecError: it is not a method, or binds something that the audit sets itself.
    """
    options = dict(given) if isinstance(given, Mapping) else {}
    method = options.pop("name", None) if isinstance(given, Mapping) else given
    while isinstance(bound := method, partial):
        if bound.args:
            raise SpecError(f"{kind}: a partial may bind options by name only, got {bound.args!r:.80}")
        method, options = bound.func, {**bound.keywords, **options}
    if not isinstance(method, str) and not callable(method):
        raise SpecError(f"{kind}: a method is a name, a mapping with a name, or a function, got {given!r:.80}")
    if "generator" in options:
        raise SpecError(f"{kind}: the audit sets the generator; use seeds=[...] instead")
    if (aim := options.get("interpreter")) is not None:
        options["interpreter"] = _entry("interpreter", aim, domain)
    known = method if isinstance(method, str) else getattr(card_of(method), "name", None)
    if known is not None:
        return {"name": known, **options}
    return (_own_attack if kind == "attack" else _own_interpreter)(method, options, domain)


def _own_attack(function: Callable[..., Any], options: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """Return a function of the caller as an entry of a spec; options that are not keys of an entry are bound to it."""
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    accepted = {key for key in ("goal", "norm", "eps", "generator") if takes_all or key in parameters}
    stated: dict[str, Any] = {key: options.pop(key) for key in ("label", "norm", "eps", "goal") if key in options}
    for key in ("norm", "eps"):
        if key in parameters and parameters[key].default not in (None, parameters[key].empty):
            stated.setdefault(key, parameters[key].default)
    name = _name(function)
    if "eps" not in stated:
        raise SpecError(f"attack {name!r} states no size; use {{'name': {name}, 'norm': 'linf', 'eps': '8/255'}}")
    norm = stated.setdefault("norm", "linf")
    bound = partial(function, **options) if options else function

    def attack(
        model: nn.Module, x: Any, y: Any, *, goal: Any = None, norm: Any = norm, eps: Any = None, generator: Any = None
    ) -> Any:
        offered = {"goal": goal, "norm": norm, "eps": eps, "generator": generator}
        return _tensor(name, bound(model, x, y, **{key: value for key, value in offered.items() if key in accepted}))

    facts = AttackFacts(
        domains=(domain.name,), norms=(norm,), goals=("untargeted", *(("targeted",) if "goal" in accepted else ()))
    )
    return {"name": name, "function": Live(Card("attack", name, attack, "", facts)), **stated}


def _own_interpreter(function: Callable[..., Any], options: dict[str, Any], domain: Domain) -> dict[str, Any]:
    """Return a function of the caller as an entry of a spec, with its options bound."""
    name = _name(function)
    label = {"label": options.pop("label")} if "label" in options else {}
    bound = partial(function, **options) if options else function

    def interpreter(model: nn.Module, x: Any, y: Any) -> Any:
        return _tensor(name, bound(model, x, y))

    facts = InterpreterFacts(domains=(domain.name,), differentiable=True)
    return {"name": name, "function": Live(Card("interpreter", name, interpreter, "", facts)), **label}


def _tensor(name: str, returned: Any) -> Any:
    """Return the result of a function of the caller; raise InputError unless it is a tensor."""
    if not isinstance(returned, Tensor):
        raise InputError(f"{name} must return a tensor, got {type(returned).__name__}")
    return returned


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
