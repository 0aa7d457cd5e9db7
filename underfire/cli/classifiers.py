"""`underfire train METHOD` for methods of training: train a classifier, write its weights, and judge it by an audit."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from underfire.catalog import Card, convert, find, number
from underfire.cli.model_card import Judgement, judged, model_card, trained_uri
from underfire.cli.options import typed
from underfire.cli.progress import StagedBar
from underfire.cli.shared import ERR, OUT, open_model, print_json
from underfire.errors import InputError
from underfire.files import atomic_write

if TYPE_CHECKING:
    from underfire.data import Dataset
    from underfire.learning import Watch
    from underfire.model import Classifier

CLASSES = "classes.json"
EPS = 8 / 255
HELD_OUT = 500
"""The largest number of training images, and at most a tenth of them, that an audit keeps back without --test."""


@dataclass(frozen=True)
class Tracking:
    """The places that loss, rate and metrics of every step are written to.

    Attributes:
        ledger: a file of JSON lines.
        tensorboard: a folder of TensorBoard.
        mlflow: the name of an experiment of MLflow.
    """

    ledger: Path | None = None
    tensorboard: Path | None = None
    mlflow: str | None = None

    def watchers(self, *, resume: bool) -> list[Watch]:
        """Return what writes the reports of a training.

        Raises:
            MissingExtra: a package is not installed. InputError: the ledger holds something else, or another training
                that is not resumed.
        """
        from underfire.learning import JsonLines, MLflow, TensorBoard, read_json_lines

        found: list[Watch] = []
        if self.ledger is not None:
            if read_json_lines(self.ledger) and not resume:
                raise InputError(f"{self.ledger} holds another training; choose another --ledger, or pass --force")
            found.append(JsonLines(self.ledger))
        if self.tensorboard is not None:
            found.append(TensorBoard(self.tensorboard))
        if self.mlflow is not None:
            found.append(MLflow(self.mlflow))
        return found


@dataclass(frozen=True)
class Job:
    """The options of the command line that every method of training has.

    Attributes:
        name: the method.
        model: the URI of the model.
        output: how its logits are read.
        data: the URI of the training images.
        out: the file for the weights.
        settings: the texts of `--set`.
        eps: the text of `--eps`.
        n: the number of training images.
        test: the URI of the test images.
        audit: whether the trained classifier is audited.
        seed: the seed of all random numbers.
        device: where to compute.
        resume: whether a checkpoint is continued.
        force: whether files are overwritten.
        quiet: whether nothing is printed but results as JSON.
        as_json: whether results are printed as JSON.
        devices: the number of devices, each with a process of its own; None is one, without further processes.
        tracking: where the reports of the steps are written.
    """

    name: str
    model: str
    output: str | None
    data: str
    out: Path
    settings: tuple[str, ...]
    eps: str | None
    n: int | None
    test: str | None
    audit: bool
    seed: int
    device: str | None
    resume: bool
    force: bool
    quiet: bool
    as_json: bool
    devices: int | None = None
    tracking: Tracking = field(default_factory=Tracking)

    @property
    def checkpoint(self) -> Path:
        """The file for the state of the training."""
        return self.out.with_name(f"{self.out.name}.checkpoint")

    @property
    def card(self) -> Path:
        """The file for the model card."""
        return self.out.with_suffix(".md")


def train_classifier(job: Job) -> None:
    """Train a classifier; write its weights to `job.out`, the model card beside them, and the audit.

    Raises:
        InputError: an option is wrong, or a file exists and neither `resume` nor `force` is given.
    """
    import torch

    from underfire import __version__
    from underfire.learning import Processes, start_processes, write_tensors
    from underfire.training import Plan

    # check everything that does not need the model
    card = find("training", job.name)
    options, plan, eps = split(card, job)
    _check_files(job)
    watch = job.tracking.watchers(resume=job.resume or job.force)
    # start the same command for each further device
    processes = Processes()
    if job.devices is not None:
        processes = start_processes(job.devices, accelerator=job.device or "auto")
        job = replace(job, device=str(processes.device), quiet=job.quiet or processes.rank > 0)
    if job.resume and not job.checkpoint.is_file() and not job.quiet:
        ERR.print(f"there is no {job.checkpoint} to resume from; training starts from the beginning")
    # open model and data
    model = open_model(job.model, job.output, job.device)
    card.check_domain(model.domain.name)
    images, test = _data(job, model)
    _check_classes(job, model)
    if not job.resume and processes.rank == 0:
        for file in (job.checkpoint, Path(f"{job.checkpoint}.teacher")):
            file.unlink(missing_ok=True)
    # train
    with ExitStack() as stack:
        tell = StagedBar(stack, f"train {job.name}", "steps", "preparing", job.quiet)
        notes: list[str] = []
        watch.append(lambda report: notes.extend(report.notes))
        chosen = Plan(**plan, checkpoint=job.checkpoint, progress=tell, watch=watch, processes=processes)
        generator = torch.Generator().manual_seed(job.seed)
        made = card(model, images, **options, plan=chosen, generator=generator)
    if processes.rank > 0:
        return
    # write the weights
    stated = {
        name: options.get(name, p.default) for name, p in card.options.items() if name not in ("plan", "generator")
    }
    about = {
        "method": job.name,
        "options": ", ".join(f"{name}={value}" for name, value in stated.items()),
        "plan": repr(chosen),
        "seed": str(job.seed),
        **({"processes": str(processes.count)} if processes.count > 1 else {}),
        "model": job.model,
        "data": f"{job.data} ({len(images)} images)",
        "underfire": __version__,
        **({"notes": "; ".join(notes)} if notes else {}),
    }
    job.out.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(job.out, made.module.state_dict(), about)
    job.checkpoint.unlink(missing_ok=True)
    if model.labels:
        with atomic_write(job.out.parent / CLASSES) as part:
            part.write_text(json.dumps(list(model.labels), ensure_ascii=False) + "\n", encoding="utf-8")
    # judge, and write the model card
    judgement = Judgement()
    if test is not None:
        judgement = judged(made, test, eps, options.get("norm"), job.out if job.audit else None, job.quiet)
    for note in notes if not job.quiet else ():
        ERR.print(f"note: {note}")
    uri = trained_uri(job.model, job.out)
    with atomic_write(job.card) as part:
        part.write_text(model_card(card, about, uri, judgement), encoding="utf-8")
    _print(job, stated, uri, judgement)


def split(card: Card[Any], job: Job) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Return the options of the method, the fields of the plan, and eps.

    Raises:
        InputError: an option is unknown or has the wrong type, or eps is not above 0 or given twice.
    """
    from underfire.training import Plan

    hints = get_type_hints(Plan)
    known = {field.name: hints[field.name] for field in fields(Plan) if field.repr}
    given = typed(card, job.settings, known)
    if job.devices is not None and job.device is not None and ":" in job.device:
        kind = job.device.partition(":")[0]
        raise InputError(f"--devices chooses the devices of a kind; pass --device {kind}, got --device {job.device}")
    eps: Any = number(job.eps) if job.eps is not None else EPS
    if not isinstance(eps, float) or not eps > 0:
        raise InputError(f"--eps must be a number above 0 such as 8/255, got {job.eps!r}")
    if job.eps is not None and "eps" in given:
        raise InputError("option 'eps' is given twice, by --eps and by --set")
    if "eps" in card.options:
        given.setdefault("eps", eps)
    elif job.eps is not None and not job.audit:
        raise InputError(f"{job.name} has no inner attack; --eps is the size of the attacks of its --audit")
    plan = {name: convert(name, given.pop(name), hint) for name, hint in known.items() if name in given}
    options = card.check(given, elsewhere=known)
    return options, plan, float(options.get("eps", eps))


def _check_files(job: Job) -> None:
    """Raise InputError if a file would be overwritten that the user has not given up."""
    if job.out.suffix != ".safetensors":
        raise InputError(f"--out must be a .safetensors file, got {str(job.out)!r}")
    for file in (job.out, job.card):
        if file.exists() and not job.force:
            raise InputError(f"{file} exists already; pass --force to overwrite, or another path")
    if job.checkpoint.exists() and not (job.resume or job.force):
        left = f"{job.checkpoint} was left by an earlier training"
        raise InputError(f"{left}; pass --resume to continue it, --force to start again")


def _check_classes(job: Job, model: Classifier) -> None:
    """Raise InputError if the folder has class names of another model."""
    names = job.out.parent / CLASSES
    if job.force or not model.labels or not names.is_file():
        return
    try:
        same = json.loads(names.read_text(encoding="utf-8")) == list(model.labels)
    except ValueError:
        same = False
    if not same:
        raise InputError(f"{names} holds other class names; pass --force to overwrite, or a path in another folder")


def _data(job: Job, model: Classifier) -> tuple[Dataset, Dataset | None]:
    """Return the training images, and the test images; an audit without them keeps some of the former back."""
    from underfire.audit.labels import open_data

    images = open_data(job.data, model, n=job.n, seed=job.seed)
    if job.test is not None:
        test = open_data(job.test, model, seed=job.seed)
        return images, test if job.n is None or job.n >= len(test) else test.subset(job.n, job.seed)
    kept = min(HELD_OUT, len(images) // 10)
    if not job.audit:
        return images, None
    if kept < 1:
        raise InputError(f"an audit needs test images; pass --test URI ({len(images)} training images are too few)")
    return images.rest(kept, job.seed), images.subset(kept, job.seed)


def _print(job: Job, stated: dict[str, Any], uri: str, judgement: Judgement) -> None:
    """Print what was trained and how it was judged."""
    found: dict[str, Any] = {"file": str(job.out), "model card": str(job.card)}
    if uri:
        found["model"] = uri
    if "batch_norm" in stated:
        found["batch norm while crafting"] = stated["batch_norm"]
    found |= judgement.figures
    if job.as_json:
        print_json(found)
    elif not job.quiet:
        for key, value in found.items():
            OUT.print(f"{key}: {value:.4f}" if isinstance(value, float) else f"{key}: {value}", soft_wrap=True)
        for sentence in judgement.sentences:
            OUT.print(sentence, soft_wrap=True)
