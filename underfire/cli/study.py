"""`underfire study`: prepare a study, serve it to annotators, and report its results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from underfire.cli import shared
from underfire.cli.flags import MOST, BatchSize, Device, Force, Json, Output, Quiet, Seed, Settings, Size
from underfire.cli.group import Group
from underfire.cli.shared import ERR, atomic_write_all, print_json
from underfire.cli.study_images import StudyImages
from underfire.cli.study_people import Folder, serve, withdraw
from underfire.errors import InputError

if TYPE_CHECKING:
    from underfire.audit.schema import InterpreterSpec
    from underfire.study.design import Study
    from underfire.study.noticing import NoticingResults
    from underfire.study.results import StudyResults

_CLASSES = 10
_POOL = 5  # without --from, the images are chosen from this multiple of their number

verbs = typer.Typer(
    cls=Group,
    help="Measure in a study whether explanations help people: in the browser, without and with explanations.",
    no_args_is_help=True,
)
verbs.command()(serve)
verbs.command()(withdraw)


@verbs.command()
def prepare(
    images: Annotated[
        str,
        typer.Argument(
            help="An image, a folder of images, a data URI (cluttered-digits:test), or the folder of an audit run, of "
            "which images, maps and attacks are taken."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="zoo:NAME, PATH.safetensors?arch=NAME, python:package.module:factory ...; not for a run."),
    ] = None,
    interpreter: Annotated[
        str | None,
        typer.Option(help="An interpreter of `underfire list interpreters`, or of the run by its label."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the study.")] = Path("underfire-study"),
    output: Output = None,
    settings: Settings = None,
    n: Annotated[
        int, typer.Option("--n", max=MOST, help="Images that count; half of them are shown with explanations.")
    ] = 40,
    practice: Annotated[int, typer.Option(max=MOST, help="Further images for practice, half before each part.")] = 8,
    classes: Annotated[int, typer.Option(help="The most classes that an annotator chooses from, 2 to 10.")] = _CLASSES,
    mistakes: Annotated[
        float | None, typer.Option(help="Share of images that the model gets wrong; default: not controlled.")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option("--from", min=4, max=MOST, help="Images to choose from; default: 5 times as many as needed."),
    ] = None,
    noticing: Annotated[
        str | None,
        typer.Option(
            metavar="EPS",
            help="Ask instead whether an input is attacked, by PGD or ADV² of this size in L-infinity, such as 8/255.",
        ),
    ] = None,
    with_image: Annotated[
        bool, typer.Option("--with-image", help="With --noticing, show the input too, and not its map alone.")
    ] = False,
    size: Size = None,
    batch_size: BatchSize = 16,
    seed: Seed = 0,
    device: Device = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Choose images, explain the model's predictions, and write a study to serve."""
    from underfire.cli import options
    from underfire.cli.study_runs import choose, notice, refuse, size_of
    from underfire.study import prepare as parts
    from underfire.study.attacked import CHOICES
    from underfire.study.design import Study
    from underfire.study.from_run import is_run

    eps = None if noticing is None else size_of(noticing)
    if eps is not None:
        _check_noticing(n, practice, classes, mistakes)
    elif with_image:
        raise InputError("--with-image needs --noticing; other studies show the image always")
    else:
        parts.check_numbers(n, practice, classes, mistakes)
    _check_folder(out, force)
    if is_run(images):
        given = {"--model": model, "--output": output, "--set": settings, "--from": pool, "--size": size}
        refuse({**given, "--device": device})
        same: dict[str, Any] = {"n": n, "practice": practice, "seed": seed, "force": force}
        if eps is not None:
            _say_noticing(notice(images, interpreter, out, eps=eps, with_image=with_image, **same), n, quiet)
            return
        study, labelled = choose(images, interpreter, out, classes=classes, mistakes=mistakes, **same)
        _say(study, n, practice, labelled, quiet)
        return
    if model is None or interpreter is None:
        raise InputError(f"{'--model' if model is None else '--interpreter'} is missing; only an audit run has its own")
    entry = options.interpreter(interpreter, tuple(settings or ()))
    source = StudyImages(images, shared.open_model(model, output, device), size, batch_size, seed, quiet)
    source.draw(pool, _POOL * (n + practice))
    if mistakes is not None and not source.labelled:
        raise InputError("--mistakes needs labels, which image files do not have; use a data URI, as in folder:PATH")
    about = {"model": model, "interpreter": interpreter, "options": dict(entry.options), "data": images}
    if eps is not None:
        study = Study(out, {**about, "eps": eps}, seed, CHOICES, (), practice, True, with_image)
        _say_noticing(_write_noticing(source, entry, eps, study, n, force=force), n, quiet)
        return
    explain = source.explainer(entry)
    # classify the images, and choose those of the study
    items = parts.predict_items(source.model, source.batches("classifying"), labelled=source.labelled)
    places = parts.choose_items(items, n=n, practice=practice, classes=classes, mistakes=mistakes, seed=seed)
    chosen = [items[i] for i in places]
    # explain them, and write the study
    study = parts.make_study(chosen, source.model.name_of, folder=out, about=about, seed=seed, practice=practice)
    with atomic_write_all(out, parts.files(n, practice), force=force) as staging:
        maps = lambda batch, rows, y: explain(batch.x[rows], y)  # noqa: E731
        parts.write(study, places, source.batches("explaining"), maps, staging)
    _say(study, n, practice, source.labelled, quiet)


def _say(study: Study, n: int, practice: int, labelled: bool, quiet: bool) -> None:
    """Say what was prepared, and what comes next."""
    if quiet:
        return
    wrong = sum(item.wrong for item in study.items[:n])
    names = ", ".join(choice.name for choice in study.choices)
    known = f"; the model gets {wrong} wrong" if labelled else "; labels unknown, so no trust coefficient"
    ERR.print(f"{n} images and {practice} for practice{known}. Classes: {names}")
    _say_next(study)


def _say_noticing(study: Study, n: int, quiet: bool) -> None:
    """Say what was prepared, and what comes next."""
    if not quiet:
        ERR.print(f"{n} images and {study.practice} for practice, each clean, under PGD and under ADV²")
        _say_next(study)


def _say_next(study: Study) -> None:
    """Say how many annotators the study needs, and what comes next."""
    from underfire.study.checks import annotators_needed, answers_needed

    needed = answers_needed(len(study.choices))
    ERR.print(f"Results take {needed} answers in each condition: invite {annotators_needed(study)} annotators or more")
    ERR.print(f"Next: underfire study serve {study.folder}")


@verbs.command()
def report(
    folder: Folder,
    html: Annotated[Path | None, typer.Option(help="The page to write; default: results.html in that folder.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Report what a study found, as a table, JSON and a page."""
    from underfire.cli import study_tables
    from underfire.study import noticing, results
    from underfire.study.design import read_study
    from underfire.study.page import render
    from underfire.study.store import FILE, AnswerStore

    study = read_study(folder)
    if not (folder / FILE).exists():
        raise InputError(f"the study has no answers yet; serve it with: underfire study serve {folder}")
    store = AnswerStore(folder)
    found: StudyResults | NoticingResults
    try:
        evaluate = noticing.evaluate if study.noticing else results.evaluate
        found = evaluate(study, store.annotators(), store.answers(), withdrawn=store.withdrawals())
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
        study_tables.show(found)
        ERR.print(f"results page: {page}")


def _check_noticing(n: int, practice: int, classes: int, mistakes: float | None) -> None:
    """Raise InputError if an option has no meaning with `--noticing`, or a number is out of range."""
    from underfire.study.attacked import check_counts

    if mistakes is not None or classes != _CLASSES:
        option = "--classes" if mistakes is None else "--mistakes"
        raise InputError(f"{option} has no meaning with --noticing, whose answers are attacked and not attacked")
    check_counts(n, practice)


def _write_noticing(
    source: StudyImages, entry: InterpreterSpec, eps: float, study: Study, n: int, *, force: bool
) -> Study:
    """Attack images until `n` and those for practice are fooled, draw their versions, and write the study."""
    from dataclasses import replace

    import torch

    from underfire.audit.methods import attack_of
    from underfire.cli import options
    from underfire.study import attacked, prepare
    from underfire.study.design import CONDITIONS

    flags = {"norm": "linf", "eps": eps}
    plain = options.attack("pgd", (), **flags)
    keeping = options.attack("adv2", (), **flags, interpreter={"name": entry.name, **entry.options})
    generator = torch.Generator(source.model.mean.device).manual_seed(study.seed)
    attacks = [partial(attack_of(attack, eps), generator=generator) for attack in (plain, keeping)]
    count, explain = n + study.practice, source.explainer(entry)
    names = prepare.files(n * len(CONDITIONS), study.practice * len(CONDITIONS))
    with atomic_write_all(study.folder, names, force=force) as staging:
        versions = attacked.attack_versions(
            source.model, source.batches("attacking"), explain, (attacks[0], attacks[1])
        )
        items = attacked.draw(
            versions,
            source.model.name_of,
            count=count,
            with_image=study.with_image,
            folder=staging,
            advice="choose from more images with --from, or a larger size with --noticing",
        )
        study = replace(study, items=tuple(items))
        study.write(staging)
    return study


def _check_folder(folder: Path, force: bool) -> None:
    """Raise InputError if the folder is a file, or contains a study with answers, or without `force` any study."""
    from underfire.study import design, store

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; --out must be a folder")

    if (folder / store.FILE).exists():
        raise InputError(f"{folder / store.FILE} has the answers of another study; choose another folder with --out")
    if (folder / design.FILE).exists() and not force:
        raise InputError(f"{folder / design.FILE} exists already; pass --force to overwrite, or another path")
