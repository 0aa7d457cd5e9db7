"""`underfire study prepare RUN`: prepare a study from what an audit run kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.cli.shared import atomic_write_all
from underfire.errors import InputError, shown

if TYPE_CHECKING:
    from underfire.study.design import Study


def refuse(given: Mapping[str, Any]) -> None:
    """Raise InputError if an option was given that the run itself determines.

    Args:
        given: values by the name of the option; None or an empty list where it is not given.
    """
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise InputError(f"{wrong[0]} has no meaning with the folder of a run, whose images, model and maps are taken")


def size_of(text: str) -> float:
    """Return the size that `--noticing` states, such as `0.03` or `8/255`."""
    from underfire.catalog import number

    eps = number(text)
    if not isinstance(eps, float) or not 0 < eps <= 1:
        raise InputError(f"--noticing must be an eps above 0 and at most 1, such as 0.03 or 8/255, got {shown(text)}")
    return eps


def choose(
    run: str,
    interpreter: str | None,
    out: Path,
    *,
    n: int,
    practice: int,
    classes: int,
    mistakes: float | None,
    seed: int,
    force: bool,
) -> tuple[Study, bool]:
    """Choose images of a run, write the study of its maps, and return it with whether the images have labels."""
    from underfire.study import prepare as parts
    from underfire.study.from_run import KeptRun

    kept = KeptRun(run, interpreter)
    if mistakes is not None and not kept.labelled:
        raise InputError("--mistakes needs labels, which the images of the run do not have")
    items = kept.items()
    places = parts.choose_items(items, n=n, practice=practice, classes=classes, mistakes=mistakes, seed=seed)
    chosen = [items[i] for i in places]
    study = parts.make_study(chosen, kept.name_of, folder=out, about=kept.about, seed=seed, practice=practice)
    with atomic_write_all(out, parts.files(n, practice), force=force) as staging:
        parts.write(study, places, kept.batches(), kept.maps, staging)
    return study, kept.labelled


def notice(
    run: str,
    interpreter: str | None,
    out: Path,
    *,
    eps: float,
    n: int,
    practice: int,
    with_image: bool,
    seed: int,
    force: bool,
) -> Study:
    """Write the study of noticing of the PGD and ADV² images of a run, and return it."""
    from underfire.study import attacked, prepare
    from underfire.study.design import CONDITIONS, Study
    from underfire.study.from_run import KeptRun

    kept = KeptRun(run, interpreter)
    study = Study(out, {**kept.about, "eps": eps}, seed, attacked.CHOICES, (), practice, True, with_image)
    names = prepare.files(n * len(CONDITIONS), practice * len(CONDITIONS))
    with atomic_write_all(out, names, force=force) as staging:
        items = attacked.draw(
            kept.versions(eps),
            kept.name_of,
            count=n + practice,
            with_image=with_image,
            folder=staging,
            advice="audit more images, or take a larger size of the run with --noticing",
        )
        study = replace(study, items=tuple(items))
        study.write(staging)
    return study
