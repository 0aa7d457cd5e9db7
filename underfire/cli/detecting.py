"""Do the work of `underfire detect fit`, and what all verbs of `underfire detect` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underfire.cli import options
from underfire.cli.progress import progress
from underfire.cli.shared import ERR, OUT, open_model, print_json
from underfire.errors import DataError, InputError, shown

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.audit.schema import AttackSpec
    from underfire.detectors import Guard
    from underfire.model import Classifier
    from underfire.records import Batch

_FEWEST = 2


@dataclass(frozen=True)
class Setting:
    """The options that all verbs of `underfire detect` have."""

    uri: str
    output: str | None
    batch_size: int
    seed: int
    device: str | None
    quiet: bool
    as_json: bool

    @cached_property
    def model(self) -> Classifier:
        """The model, on the device."""
        return open_model(self.uri, self.output, self.device)

    def read(self, uri: str, n: int | None) -> Batch:
        """Return images with labels that are the model's classes, on the device.

        Raises:
            DataError: the data cannot be opened, or has no labels.
        """
        from underfire.audit.labels import open_data

        found = open_data(uri, self.model, n=n, seed=self.seed)
        if not found.labelled:
            raise DataError(f"{uri!r} has no labels, and detection is measured on images that the model gets right")
        return found[:].to(str(self.model.mean.device))

    def say(self, text: str) -> None:
        """Print a line for the user on stderr, unless --quiet."""
        if not self.quiet:
            ERR.print(text)


def fit(
    setting: Setting,
    name: str,
    settings: tuple[str, ...],
    data_uri: str,
    n: int | None,
    attacks: tuple[str, ...],
    rate: float,
    out: Path,
    force: bool,
) -> None:
    """Fit a detector to one half of the images, choose its threshold from the other half, and save both as a guard.

    Raises:
        InputError: there is no such detector or option; the detector needs attacks or takes none; or `out` exists.
        DataError: there are too few images for the fit or for the false-positive rate.
    """
    import torch

    from underfire.catalog import find
    from underfire.detectors import Calibration, Detector, Guard
    from underfire.detectors.calibration import image_marks
    from underfire.measures.detection import threshold

    card = find("detector", name)
    entries = [read_attack(text) for text in attacks]
    detector: Any = card.with_options(**card.check(options.typed(card, settings)))
    if not isinstance(detector, Detector):
        raise InputError(f"{name} does not extend Detector, so that its file cannot be written")
    if detector.supervised != bool(entries):
        does = "learns from attacked images; name some by --attack" if detector.supervised else "takes no --attack"
        raise InputError(f"{name} {does}")
    new_file(out, force)
    batch = setting.read(data_uri, n)
    if len(batch) < _FEWEST:
        raise DataError(f"{name} needs images to fit to and others to choose the threshold from, got {len(batch)}")
    # one half to fit to, and the other to choose the threshold from
    places = torch.arange(len(batch))
    learn, choose = batch.take(places[::2]), batch.take(places[1::2])
    threshold(list(range(len(choose))), rate)  # before the fit, check that the images can tell so fine a rate
    attacked = None
    if entries:
        made = [attacked_images(setting, entry, eps, learn)[0] for entry in entries for eps in entry.eps]
        again = len(made)
        attacked = type(learn)(torch.cat(made), learn.y.repeat(again), learn.ids * again)
    with progress(f"fit {name}", len(learn), unit="images", quiet=setting.quiet) as show:
        detector.fit(setting.model, learn, attacked)
        show(len(learn))
    found = scores_of(setting, detector.score, choose.x)
    at = threshold(found, rate)
    seen = frozenset(image_marks(batch.x))
    guard = Guard(setting.model, detector, at, calibration=Calibration(tuple(found.tolist()), seen))
    guard.save(out)
    counts = {"fitted": len(learn), "dropped": detector.dropped, "calibrated": len(choose)}
    if attacked is not None:
        counts |= {"attacked": len(attacked), "unsuccessful": detector.fitted().unsuccessful}
    if setting.as_json:
        expected = {"threshold": at.value, "false_positive_rate": at.rate}
        print_json({"file": str(out), "detector": name, **counts, **expected})
    elif not setting.quiet:
        OUT.print(f"{name}: fitted to {len(learn)} images, {detector.dropped} of them left out as misclassified")
        if attacked is not None:
            left_out = counts["unsuccessful"]
            OUT.print(f"and to {len(attacked)} attacked images, {left_out} of them left out as unsuccessful")
        OUT.print(f"threshold {at.value:.6g}: expected false-positive rate {at.rate}")
        OUT.print(f"written to {out}")


# --- functions for all verbs -----------------------------------------------------------------------------------------


def read_attack(text: str) -> AttackSpec:
    """Return the attack of a name, or of a mapping as in a spec, with its options checked.

    Raises:
        InputError: the text is neither, or the attack or an option is wrong.
    """
    import yaml

    from underfire.audit.spec import parse_attack
    from underfire.audit.yaml_files import read_yaml

    try:
        content = read_yaml(text)
    except (yaml.YAMLError, RecursionError):
        content = None
    if isinstance(content, str):
        content = {"name": content}
    if not isinstance(content, Mapping):
        raise InputError(f"--attack must be a name or {{name: pgd, eps: 0.1}}, got {shown(text)}")
    return parse_attack({key: [value] if key == "eps" and not isinstance(value, list) else value
                         for key, value in content.items()})  # fmt: skip


def open_guard(setting: Setting, file: Path) -> Guard:
    """Return the guard of a file for the model, which must know what it was calibrated on."""
    from underfire.audit.fitted_files import calibrated_guard

    return calibrated_guard(file, setting.model)[0]


def attacked_images(
    setting: Setting, entry: AttackSpec, eps: float, batch: Batch, guard: Guard | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the images of a batch after an attack of one size, and the class that each should reach.

    The images are attacked `batch_size` at a time, under a progress bar.

    Args:
        setting: the options of the verb.
        entry: the attack.
        eps: its size.
        batch: the images.
        guard: None attacks the model; a guard is attacked itself. An untargeted attack on a guard is told to reach the
            likeliest wrong classes.

    Returns:
        The images, and the goals of the entry, int64 `[n]`; None if it is untargeted.
    """
    import torch

    from underfire.ascent.rows import likeliest_others
    from underfire.audit.goals import choose_goal, other_than_label
    from underfire.audit.methods import attack_of
    from underfire.audit.sizes import size

    attack = attack_of(entry, eps)
    done: list[Tensor] = []
    goals: list[Tensor] = []
    title = f"{entry.title} at eps {size(str(entry.norm), eps)}" + (f" on {guard.detector.name}" if guard else "")
    with progress(title, len(batch), unit="images", quiet=setting.quiet) as show:
        for rows in torch.arange(len(batch)).split(setting.batch_size):
            part = batch.take(rows)
            logits = setting.model.predict(part.x)
            goal = choose_goal(entry.goal, logits, part, setting.seed, setting.model.labels or ())
            wanted = other_than_label(goal, part.y, logits.shape[1])
            if guard is not None and wanted is None:
                wanted = likeliest_others(logits, part.y, 1)[:, 0]
            generator = torch.Generator(part.x.device).manual_seed(setting.seed)
            model = setting.model if guard is None else guard
            done.append(attack(model, part.x.clone(), part.y, goal=wanted, generator=generator).detach())
            goals += [] if goal is None else [goal]
            show(int(rows[-1]) + 1)
    return torch.cat(done), torch.cat(goals) if goals else None


def scores_of(setting: Setting, score: Callable[[Classifier, Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the scores `[n]` of images, `batch_size` at a time, in float64 on the CPU."""
    import torch

    with torch.no_grad():
        return torch.cat([score(setting.model, part).double().cpu() for part in x.split(setting.batch_size)])


def new_file(out: Path | None, force: bool, suffixes: Sequence[str] = ()) -> None:
    """Raise InputError if the file exists and `force` is not given, or if it has none of the suffixes."""
    if out is None:
        return
    if suffixes and out.suffix not in suffixes:
        raise InputError(f"--out must end in {' or '.join(suffixes)}, got {str(out)!r}")
    if out.is_dir():
        raise InputError(f"--out must be a file, and {out} is a folder")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; pass --force to overwrite, or another path")


def write_rows(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write rows as a table, CSV or Parquet by the suffix, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.csv import write_csv

    from underfire.files import atomic_write

    table = pa.Table.from_pylist([dict(row) for row in rows])
    with atomic_write(out) as part:
        (write_csv if out.suffix == ".csv" else pq.write_table)(table, part)
