"""`underfire study`: prepare a study, serve it to annotators, and report its results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from underfire.cli import shared
from underfire.cli.flags import MOST, BatchSize, Device, Force, Images, Json, Model, Output, Quiet, Seed, Settings, Size
from underfire.cli.group import Group
from underfire.cli.shared import ERR, OUT, atomic_write_all, print_json
from underfire.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from underfire.cli.images import ImageInput
    from underfire.model import Classifier
    from underfire.records import Batch, Interval
    from underfire.study.results import Difference, StudyResults

_POOL = 5  # without --from, the images are chosen from this multiple of their number

verbs = typer.Typer(
    cls=Group,
    help="Measure in a study whether explanations help people: in the browser, without and with explanations.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(help="The folder of a prepared study.")]


@verbs.command()
def prepare(
    images: Images,
    model: Model,
    interpreter: Annotated[str, typer.Option(help="An interpreter of `underfire list interpreters`.")],
    out: Annotated[Path, typer.Option(help="The folder of the study.")] = Path("underfire-study"),
    output: Output = None,
    settings: Settings = None,
    n: Annotated[
        int, typer.Option("--n", max=MOST, help="Images that count; half of them are shown with explanations.")
    ] = 40,
    practice: Annotated[int, typer.Option(max=MOST, help="Further images for practice, half before each part.")] = 8,
    classes: Annotated[int, typer.Option(help="The most classes that an annotator chooses from, 2 to 10.")] = 10,
    mistakes: Annotated[
        float | None, typer.Option(help="Share of images that the model gets wrong; default: not controlled.")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option("--from", min=4, max=MOST, help="Images to choose from; default: 5 times as many as needed."),
    ] = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Choose images, explain the model's predictions, and write a study to serve."""
    from underfire.cli import options
    from underfire.study import prepare as parts

    entry = options.interpreter(interpreter, tuple(settings or ()))
    parts.check_numbers(n, practice, classes, mistakes)
    _check_folder(out, force)
    source = _StudyImages(images, shared.open_model(model, output, device), size, batch_size, seed, quiet)
    source.draw(pool, _POOL * (n + practice))
    if mistakes is not None and not source.labelled:
        raise InputError("--mistakes needs labels, which image files do not have; use a data URI, as in folder:PATH")
    explain = source.explainer(entry)
    # classify the images, and choose those of the study
    items = parts.predict_items(source.model, source.batches("classifying"), labelled=source.labelled)
    places = parts.choose_items(items, n=n, practice=practice, classes=classes, mistakes=mistakes, seed=seed)
    about = {"model": model, "interpreter": interpreter, "options": dict(entry.options), "data": images}
    chosen = [items[i] for i in places]
    # explain them, and write the study
    study = parts.make_study(chosen, source.model, folder=out, about=about, seed=seed, practice=practice)
    with atomic_write_all(out, parts.files(n, practice), force=force) as staging:
        parts.write(study, places, source.batches("explaining"), explain, staging)
    if not quiet:
        wrong = sum(item.wrong for item in study.items[:n])
        names = ", ".join(choice.name for choice in study.choices)
        known = f"; the model gets {wrong} wrong" if source.labelled else "; labels unknown, so no trust coefficient"
        ERR.print(f"{n} images and {practice} for practice{known}. Classes: {names}")
        ERR.print(f"Next: underfire study serve {out}")


@verbs.command()
def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 admits other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0: a free one.")] = 8000,
    quiet: Quiet = False,
) -> None:
    """Serve a study to the browsers of annotators until Ctrl-C; every answer is stored at once."""
    import errno
    import os
    import socket

    from underfire.study.app import application, is_loopback
    from underfire.study.design import read_study
    from underfire.study.store import AnswerStore

    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("uvicorn", "starlette") from None
    study = read_study(folder)
    study.check_pictures()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address to the system's message; an unknown host name has no such message.
        unknown = error.errno is None or isinstance(error, socket.gaierror)
        reason = error.strerror if unknown else os.strerror(error.errno or 0)
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InputError(f"cannot listen on {host} port {port}: {reason}; choose another with {other}") from None
    with listening:
        store = AnswerStore(folder)
        app = application(study, store, host=host)
        place = f"[{host}]" if ":" in host else host
        if not quiet:
            OUT.print(f"http://{place}:{listening.getsockname()[1]}/")
            reach = "" if is_loopback(host) else "; every machine that can reach this one can take part"
            ERR.print(f"Press Ctrl-C to stop. Every answer is stored in {store.path}{reach}")
        try:
            config = uvicorn.Config(app, log_level="error", access_log=False, ws="none", lifespan="off")
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            pass
        finally:
            count = len(store.answers())
            store.close()
    if not quiet:
        ERR.print(f"stopped with {count} answers; next: underfire study report {folder}")


@verbs.command()
def report(
    folder: Folder,
    html: Annotated[Path | None, typer.Option(help="The page to write; default: DIR/results.html.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Report information transfer rate and trust, without and with explanations, as a table, JSON and a page."""
    from underfire.study.design import read_study
    from underfire.study.page import render
    from underfire.study.results import evaluate
    from underfire.study.store import FILE, AnswerStore

    study = read_study(folder)
    if not (folder / FILE).exists():
        raise InputError(f"the study has no answers yet; serve it with: underfire study serve {folder}")
    store = AnswerStore(folder)
    try:
        found = evaluate(study, store.annotators(), store.answers())
    finally:
        store.close()
    page = html or folder / "results.html"
    if page.is_dir():
        raise InputError(f"--html must be a file, and {page} is a folder")
    with atomic_write_all(page.parent, [page.name], force=True) as staging:
        (staging / page.name).write_text(render(found), encoding="utf-8")
    if as_json:
        print_json(found)
    elif not quiet:
        _show(found)
        ERR.print(f"results page: {page}")


class _StudyImages:
    """The model and the images, which are read twice: to classify all of them, and to explain the chosen ones."""

    n: int | None = None
    labelled = False

    def __init__(
        self, images: str, model: Classifier, size: int | None, batch_size: int, seed: int, quiet: bool
    ) -> None:
        from underfire.domains import domain_of

        self.images, self.model, self.size, self.batch_size = images, model, size, batch_size
        self.seed, self.quiet = seed, quiet
        domain_of(self.model).require_images("study prepare")

    def draw(self, pool: int | None, enough: int) -> None:
        """Set the number of images that are classified to `pool`; if it is None, to `enough`, but at most to all."""
        from underfire import data

        found = self._open()  # raises if the images cannot be read
        count = len(data.load(self.images)) if found.labelled else len(found.stems)
        self.n, self.labelled = min(enough, count) if pool is None else pool, found.labelled

    def batches(self, what: str) -> Iterator[Batch]:
        """Yield all images in batches on the device, under a progress bar."""
        from underfire.cli.progress import progress
        from underfire.domains import check_inputs

        source, done = self._open(), 0
        with progress(what, len(source.stems), unit="images", quiet=self.quiet) as show:
            for batch in source.batches:
                check_inputs(self.model, batch.x, batch.y.clamp_min(0))  # -1 means no label
                yield batch.to(str(self.model.mean.device))
                done += len(batch)
                show(done)

    def explainer(self, entry: Any) -> Any:
        """Return a function `(x, y) -> map` that explains images for classes."""
        from underfire.audit.methods import interpreter_of
        from underfire.catalog import find

        find("interpreter", entry.name).check_domain(self.model.domain.name)
        interpret = interpreter_of(entry)
        return lambda x, y: interpret(self.model, x, y)

    def _open(self) -> ImageInput:
        """Open the images, from the beginning."""
        from underfire.cli.images import open_images

        return open_images(
            self.images,
            n=self.n,
            size=self.size,
            batch_size=self.batch_size,
            seed=self.seed,
            model=self.model,
        )


def _check_folder(folder: Path, force: bool) -> None:
    """Raise InputError if the folder contains a study with answers, or without `force` any study."""
    from underfire.study import design, store

    if (folder / store.FILE).exists():
        raise InputError(f"{folder / store.FILE} has the answers of another study; choose another folder with --out")
    if (folder / design.FILE).exists() and not force:
        raise InputError(f"{folder / design.FILE} exists already; pass --force to overwrite, or another path")


def _show(found: StudyResults) -> None:
    """Print the results of a study as tables."""
    from rich.table import Table

    from underfire.study.results import headline

    title, numbers = headline(found)
    OUT.print(f"{title}. {numbers}\n")
    a, b = found.pooled["without"], found.pooled["with"]
    table = Table("", "without", "with", "difference", box=None, header_style="dim", pad_edge=False)
    table.add_row("bits/s", a.why_rate or _format(a.rate), b.why_rate or _format(b.rate), _format_gain(found.rate))
    table.add_row("trust", a.why_trust or _format(a.trust), b.why_trust or _format(b.trust), _format_gain(found.trust))
    table.add_row("agree with the model", _format(a.agreement, ".0%"), _format(b.agreement, ".0%"))
    table.add_row("seconds (median)", f"{a.seconds:.2f}", f"{b.seconds:.2f}")
    table.add_row("answers", str(a.n), str(b.n))
    OUT.print(table)
    if found.people:
        OUT.print()
        people = Table(
            "annotator",
            "answered",
            "first block",
            "agreement",
            "seconds",
            "bits/s",
            box=None,
            header_style="dim",
            pad_edge=False,
        )
        for person in found.people:
            before, after = person.figures["without"], person.figures["with"]
            people.add_row(
                person.name,
                f"{person.answered}/{person.of}",
                "with" if person.explained_first else "without",
                f"{before.agreement.value:.0%} → {after.agreement.value:.0%}",
                f"{before.seconds:.2f} → {after.seconds:.2f}",
                f"{before.rate.value:.2f} → {after.rate.value:.2f}",
            )
        OUT.print(people)
    for reason, count in found.left_out.items():
        OUT.print(f"left out: {count} ({reason})")
    for note in found.notes:
        OUT.print(f"note: {note}")


def _format_gain(difference: Difference) -> str:
    return difference.why or _format(difference.value, "+.2f")


def _format(interval: Interval, form: str = ".2f") -> str:
    if interval.low != interval.low:  # nan: no interval
        return f"{interval.value:{form}}"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
