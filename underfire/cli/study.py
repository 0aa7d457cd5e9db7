"""`underfire study`: prepare a study, serve it to annotators, report what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from underfire.cli import shared
from underfire.cli.flags import BatchSize, Device, Force, Images, Json, Model, Quiet, Seed, Settings, Size
from underfire.cli.shared import ERR, OUT, print_json, progress, whole
from underfire.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from underfire.cli.images import Source
    from underfire.records import Batch, Interval
    from underfire.study.results import Difference, Findings

_POOL = 5  # times as many images are looked at as are wanted, where --from does not say how many

verbs = typer.Typer(
    help="Measure with people whether explanations help: a study in the browser, without and with explanations.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(help="The folder of a prepared study.")]


@verbs.command()
def prepare(
    images: Images,
    model: Model,
    interpreter: Annotated[str, typer.Option(help="An interpreter of `underfire list interpreters`.")],
    out: Annotated[Path, typer.Option(help="The folder of the study.")] = Path("underfire-study"),
    settings: Settings = None,
    n: Annotated[int, typer.Option("--n", help="Images that count, half of them shown with explanations.")] = 40,
    practice: Annotated[int, typer.Option(help="Further images to practise with, half before each part.")] = 8,
    classes: Annotated[int, typer.Option(help="The most classes to choose from, 2 to 10.")] = 10,
    mistakes: Annotated[
        float | None, typer.Option(help="Share of images that the model gets wrong; default: as they come.")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option("--from", min=4, help="Images to choose from; default: 5 times as many as wanted."),
    ] = None,
    size: Size = None,
    batch_size: BatchSize = 16,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Choose images, explain what the model says of them, and write a study that can be served."""
    from underfire.cli import options
    from underfire.study import prepare as parts

    entry = options.interpreter(interpreter, tuple(settings or ()))
    parts.check(n, practice, classes, mistakes)
    _fresh(out, force)
    source = _Source(images, model, size, batch_size, seed, shared.device(device), quiet)
    source.draw(pool, _POOL * (n + practice))
    explain = source.explainer(entry)
    items = parts.look(source.model, source.batches("looking at"), labelled=source.labelled)
    if mistakes is not None and not source.labelled:
        raise InputError("--mistakes needs labels, which image files do not have; use a data URI, as in folder:PATH")
    places = parts.choose(items, n=n, practice=practice, classes=classes, mistakes=mistakes, seed=seed)
    about = {"model": model, "interpreter": interpreter, "options": dict(entry.options), "data": images}
    chosen = [items[i] for i in places]
    study = parts.study_of(chosen, source.model, folder=out, about=about, seed=seed, practice=practice)
    with whole(out, parts.files(n, practice), force=force) as desk:
        parts.write(study, places, source.batches("explaining"), explain, desk)
    if not quiet:
        wrong = sum(item.wrong for item in study.items[:n])
        names = ", ".join(choice.name for choice in study.choices)
        known = (
            f"; the model is wrong about {wrong}" if source.labelled else "; labels unknown, so no trust coefficient"
        )
        ERR.print(f"{n} images and {practice} for practice{known}. Classes: {names}")
        ERR.print(f"Next: underfire study serve {out}")


@verbs.command()
def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines take part.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    quiet: Quiet = False,
) -> None:
    """Serve a study to the browsers of its annotators, and keep every answer at once, until Ctrl-C."""
    import errno
    import os
    import socket

    from underfire.study.app import application, is_loopback
    from underfire.study.design import read_study
    from underfire.study.store import Store

    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("uvicorn", "study") from None
    study = read_study(folder)
    study.check_pictures()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        # Python adds the address to the system's words; for a name that nobody has there are no such words.
        unknown = error.errno is None or isinstance(error, socket.gaierror)
        reason = error.strerror if unknown else os.strerror(error.errno or 0)
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise InputError(f"cannot listen on {host} port {port}: {reason}; choose another with {other}") from None
    with listening:
        store = Store(folder)
        app = application(study, store, host=host)
        place = f"[{host}]" if ":" in host else host
        if not quiet:
            OUT.print(f"http://{place}:{listening.getsockname()[1]}/")
            reach = "" if is_loopback(host) else "; every machine that reaches this one can take part"
            ERR.print(f"Press Ctrl-C to stop: every answer is kept in {store.path}{reach}")
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
    html: Annotated[
        Path | None, typer.Option(help="Write the results as a page here; default: DIR/results.html.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Information transfer rate and trust, without and with explanations, as a table, JSON and a page."""
    from underfire.study.design import read_study
    from underfire.study.page import render
    from underfire.study.results import findings
    from underfire.study.store import FILE, Store

    study = read_study(folder)
    if not (folder / FILE).exists():
        raise InputError(f"nobody has taken part yet; serve the study with: underfire study serve {folder}")
    store = Store(folder)
    try:
        found = findings(study, store.annotators(), store.answers())
    finally:
        store.close()
    page = html or folder / "results.html"
    if page.is_dir():
        raise InputError(f"--html wants a file, and {page} is a folder")
    with whole(page.parent, [page.name], force=True) as desk:
        (desk / page.name).write_text(render(found), encoding="utf-8")
    if as_json:
        print_json(found)
    elif not quiet:
        _show(found)
        ERR.print(f"the results as a page are in {page}")


class _Source:
    """The model and the images, which are read twice: to look at all, and to explain the chosen ones."""

    n: int | None = None
    labelled = False

    def __init__(
        self, images: str, model: str, size: int | None, batch_size: int, seed: int, place: str, quiet: bool
    ) -> None:
        from underfire import models
        from underfire.cli.images import channels_of

        self.images, self.size, self.batch_size = images, size, batch_size
        self.seed, self.place, self.quiet = seed, place, quiet
        self.model = models.load(model, device=place)
        self.channels = channels_of(self.model)

    def draw(self, pool: int | None, enough: int) -> None:
        """Look at `pool` images; where it is None, at `enough` or at all there are."""
        from underfire import data

        found = self._open()  # says what is wrong with the place
        there = len(data.load(self.images)) if found.labelled else len(found.stems)
        self.n, self.labelled = min(enough, there) if pool is None else pool, found.labelled

    def batches(self, what: str) -> Iterator[Batch]:
        """All images in batches on the device, under a progress bar."""
        from underfire.ascent.loop import check_inputs

        source, done = self._open(), 0
        with progress(what, len(source.stems), unit="images", quiet=self.quiet) as show:
            for batch in source.batches:
                check_inputs(self.model, batch.x, batch.y.clamp_min(0))  # no label is -1
                yield batch.to(self.place)
                done += len(batch)
                show(done)

    def explainer(self, entry: Any) -> Any:
        """What gives the maps of images and classes."""
        from underfire.audit.methods import interpreter_of

        interpret = interpreter_of(entry)
        return lambda x, y: interpret(self.model, x, y)

    def _open(self) -> Source:
        from underfire.cli.images import open_images

        return open_images(
            self.images,
            n=self.n,
            size=self.size,
            batch_size=self.batch_size,
            seed=self.seed,
            channels=self.channels,
        )


def _fresh(folder: Path, force: bool) -> None:
    """Raise InputError where an earlier study lies in the folder: its answers would be taken for answers to this."""
    from underfire.study import design, store

    if (folder / store.FILE).exists():
        raise InputError(f"{folder / store.FILE} has the answers to another study; choose another folder with --out")
    if (folder / design.FILE).exists() and not force:
        raise InputError(f"{folder / design.FILE} exists already; pass --force to overwrite, or another path")


def _show(found: Findings) -> None:
    from rich.table import Table

    from underfire.study.results import verdict

    headline, numbers = verdict(found)
    OUT.print(f"{headline}. {numbers}\n")
    a, b = found.pooled["without"], found.pooled["with"]
    table = Table("", "without", "with", "difference", box=None, header_style="dim", pad_edge=False)
    table.add_row("bits/s", a.why_rate or _span(a.rate), b.why_rate or _span(b.rate), _gain(found.rate))
    table.add_row("trust", a.why_trust or _span(a.trust), b.why_trust or _span(b.trust), _gain(found.trust))
    table.add_row("agree with the model", _span(a.agreement, ".0%"), _span(b.agreement, ".0%"))
    table.add_row("seconds (median)", f"{a.seconds:.2f}", f"{b.seconds:.2f}")
    table.add_row("answers", str(a.n), str(b.n))
    OUT.print(table)
    if found.people:
        OUT.print()
        people = Table(
            "annotator",
            "answered",
            "began",
            "agrees",
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


def _gain(difference: Difference) -> str:
    return difference.why or _span(difference.value, "+.2f")


def _span(interval: Interval, form: str = ".2f") -> str:
    if interval.low != interval.low:  # nan: there is no interval
        return f"{interval.value:{form}}"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
