"""Draw every explanation of the catalogue for the same images: `python -m tools.interpreter_gallery`.

The command writes `interpreter-gallery.md` and its pictures: one figure of all maps for each image, one of all maps of
a digit for every class, and one for each interpreter. The two photographs come with scikit-image and are in the public
domain (CC0). They need the ImageNet network in the folder `--data`; without it, only a digit is shown.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from tools import galleries
from underfire import data, models
from underfire.attribution.comparison import refuse_large, run_all_interpreters
from underfire.catalog import Card, cards, find
from underfire.errors import InputError, UnderfireError
from underfire.figures import heatmap, magnify, save_small, sheet
from underfire.measures.maps import informative
from underfire.measures.prediction import confidence
from underfire.model import Classifier
from underfire.records import Examples

SIDE = 224
REFERENCE = 500  # images that an interpreter is fitted to
#: Options that differ from the defaults, by interpreter; the page names them.
SETTINGS: dict[str, dict[str, Any]] = {"counterfactual": {"steps": 30, "binary_search_steps": 3}}
_ACROSS = 6  # pictures in one row of a figure


@dataclass(frozen=True)
class Subject:
    """An image `x` `[1, C, H, W]`, its model, and the images that interpreters are fitted to, or None."""

    name: str
    model: Classifier
    x: Tensor
    reference: data.Dataset | None

    @property
    def y(self) -> Tensor:
        """The class that the model predicts, `[1]`."""
        return self.model.predict(self.x).argmax(1)

    @property
    def title(self) -> str:
        """The name of the predicted class and its probability."""
        logits = self.model.predict(self.x)
        return f"{_short(self.model, int(self.y))}, {confidence(logits, self.y).item():.0%}"


@dataclass
class ShownInterpreter:
    """The result of one interpreter: pictures with titles by subject, sentences, and seconds by subject."""

    card: Card
    pictures: dict[str, list[tuple[str, Tensor]]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def subjects(root: Path | None, seed: int) -> list[Subject]:
    """Return a digit, and if `root` has the network for them, photographs of a cup of coffee and of a cat."""
    digits = models.load("zoo:cluttered_digits")
    batch = data.load("cluttered-digits:test", n=1, seed=seed)[:]
    found = [Subject("a digit", digits, batch.x, data.load("cluttered-digits:train", n=REFERENCE, seed=seed))]
    if root is not None:
        from skimage.data import chelsea, coffee

        name = "mobilenet_v1_075_imagenet"
        network = models.load(f"{root / 'weights' / name}.safetensors?arch={name}")
        for title, picture in (("coffee", coffee()), ("a cat", chelsea())):
            found.append(Subject(title, network, square(torch.from_numpy(picture)), None))
    return found


def square(picture: Tensor) -> Tensor:
    """Crop the centre of a photograph, uint8 `[H, W, 3]`, and scale it to `[1, 3, SIDE, SIDE]`."""
    x = picture.permute(2, 0, 1)[None].float() / 255
    top, left = (max(0, (n - min(x.shape[2:])) // 2) for n in x.shape[2:])
    side = min(x.shape[2:])
    x = x[:, :, top : top + side, left : left + side]
    return F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True).clamp(0, 1)


def _short(model: Classifier, index: int) -> str:
    """Return the name of a class without its synonyms."""
    return model.name_of(index).split(",")[0]


# --- one interpreter -------------------------------------------------------------------------------------------------


def explained(card: Card, subject: Subject) -> Any:
    """Return the explanation of the predicted class of a subject.

    Raises:
        UnderfireError: the interpreter cannot explain this model.
    """
    refuse_large(card, subject.x)
    interpret = card.with_options(**SETTINGS.get(card.name, {}))
    if card.fitted and "weights" not in card.options:
        if subject.reference is None:
            raise InputError("there are no images to which it could be fitted")
        interpret.fit(subject.model, subject.reference)  # type: ignore[attr-defined]
    return interpret(subject.model, subject.x, subject.y)


def show(card: Card, pictured: Sequence[Subject]) -> ShownInterpreter:
    """Apply one interpreter to every subject and draw the results."""
    shown = ShownInterpreter(card)
    for subject in pictured:
        start = time.perf_counter()
        try:
            answer = explained(card, subject)
        except UnderfireError as error:
            shown.words.append(f"Not on {subject.name}: {str(error).rstrip('.')}.")
            continue
        shown.seconds[subject.name] = time.perf_counter() - start
        gives = card.facts.gives
        if gives == "map":
            shown.pictures[subject.name] = [(card.name, _drawn(answer, subject))]
        elif gives == "images":
            other = _short(subject.model, int(subject.model.predict(answer).argmax()))
            change, factor = magnify(subject.x[0], answer[0])
            place = _window(subject.x[0], answer[0])
            shown.pictures[subject.name] = [
                (f"change × {factor:.3g}", change),
                (f"becomes {other}", answer[0]),
                ("magnified, before", _cut(subject.x[0], place)),
                ("magnified, after", _cut(answer[0], place)),
            ]
        elif gives == "examples":
            shown.pictures[subject.name] = _examples(answer)
        else:
            shown.words += [f"Of {subject.name}: {_words(rules)}" for rules in answer]
    return shown


def _window(x: Tensor, changed: Tensor) -> tuple[int, int, int]:
    """Return top, left and side of the square, a quarter of the image wide, in which it changed most."""
    side = x.shape[1] // 4
    change = (changed - x).abs().sum(0)[None, None]
    sums = F.avg_pool2d(change, side, stride=1)[0, 0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return top, left, side


def _cut(x: Tensor, place: tuple[int, int, int]) -> Tensor:
    """Return a square of an image."""
    top, left, side = place
    return x[:, top : top + side, left : left + side]


def _words(rules: Any) -> str:
    """Return rules as one line of text."""
    return rules if isinstance(rules, str) else "; ".join(map(str, rules))


def _drawn(m: Tensor, subject: Subject) -> Tensor:
    """Return a map as colours over the image of a subject."""
    return heatmap(m[0].detach(), subject.x[0])


def _examples(found: Examples) -> list[tuple[str, Tensor]]:
    """Return the first five examples with their titles."""
    return [
        (f"{note}: {int(label)}", image)
        for note, label, image, index in zip(found.notes[0], found.y[0], found.x[0], found.index[0], strict=True)
        if index >= 0
    ][:5]


# --- the sheets ------------------------------------------------------------------------------------------------------


def all_maps(shown: Sequence[ShownInterpreter], subject: Subject) -> Any:
    """Draw one image and all its maps in one figure."""
    cells: list[tuple[str, Tensor | None]] = [(subject.title, subject.x[0])]
    cells += [
        (one.card.name, one.pictures[subject.name][0][1])
        for one in shown
        if one.card.facts.gives == "map" and subject.name in one.pictures
    ]
    return _grid(cells)


def _grid(cells: list[tuple[str, Tensor | None]]) -> Any:
    """Draw pictures with titles, `_ACROSS` in a row."""
    cells = cells + [("", None)] * (-len(cells) % _ACROSS)
    rows = [cells[i : i + _ACROSS] for i in range(0, len(cells), _ACROSS)]
    return sheet([[image for _, image in row] for row in rows], titles=[[t for t, _ in r] for r in rows], legend=True)


def all_classes(subject: Subject, names: Sequence[str] = ()) -> Any:
    """Draw the maps of every interpreter for every class of one image, one row per interpreter."""
    scores = subject.model.predict(subject.x).softmax(1)[0]
    k = torch.arange(len(scores))
    x = subject.x.expand(len(k), -1, -1, -1)
    rows: list[list[Tensor | None]] = []
    titles: list[str] = []
    for card, maps in run_all_interpreters(subject.model, x, k, options=SETTINGS, only=names):
        if isinstance(maps, Tensor):
            rows.append([heatmap(m, subject.x[0]) if bool(informative(m[None])) else None for m in maps])
            titles.append(card.name)
    heads = [f"{_short(subject.model, i)} ({p:.0%})" for i, p in enumerate(scores.tolist())]
    return sheet(rows, titles, heads, cell=0.95, legend=True)


# --- the page --------------------------------------------------------------------------------------------------------


_ABOUT = """Every explanation of the catalogue for the same images, always of the predicted class. The image is drawn in
grey below the colours; a legend below each figure explains them. Made by
`python -m tools.interpreter_gallery`, with the default options{settings}. A map that looks convincing
may be wrong: measurements show [which interpreter to trust](interpreters.md#which-interpreter-to-trust)."""


def page(shown: Sequence[ShownInterpreter], pictured: Sequence[Subject]) -> str:
    """Return the page: all interpreters on each image, all for every class, then each alone."""
    changed = "; ".join(
        f"`{name}` with " + ", ".join(f"`{key}={value}`" for key, value in options.items())
        for name, options in SETTINGS.items()
    )
    lines = ["# Gallery of explanations", "", _ABOUT.format(settings=f" except {changed}" if changed else "")]
    for subject in pictured[::-1]:
        slug = subject.name.replace(" ", "-")
        lines += ["", f"## All of them, on {subject.name}", "", f"The prediction: {subject.title}.", ""]
        lines += [f"![every map of {subject.name}](interpreter-gallery/all-{slug}.webp)"]
    lines += ["", "## All of them, for every class", "", "One digit, and the evidence for each of the ten classes.", ""]
    lines += ["![every map of a digit, for every class](interpreter-gallery/classes.webp)"]
    for one in shown:
        lines += ["", f"## {one.card.name}", "", f"{one.card.summary} ({one.card.paper})"]
        if one.pictures:
            alt = f"{one.card.name} on {', '.join(one.pictures)}"
            lines += ["", f"![{alt}](interpreter-gallery/{one.card.name}.webp)"]
        if one.words:
            lines += ["", *("  \n".join(one.words).split("\n"))]
    return "\n".join(lines) + "\n"


def _strip(one: ShownInterpreter, by_name: Mapping[str, Subject]) -> Any:
    """Draw each subject and, beside it, the pictures of one interpreter: in one row, or in a row for each subject."""
    rows = [[(by_name[name].title, by_name[name].x[0]), *pictures] for name, pictures in one.pictures.items()]
    if all(len(row) == 2 for row in rows):
        rows = [[cell for row in rows for cell in row]]
    return sheet([[image for _, image in row] for row in rows], titles=[[title for title, _ in row] for row in rows])


def write(out: Path, *, root: Path | None = None, names: Sequence[str] = (), seed: int = 0) -> Path:
    """Write the page and its pictures into the folder `out`, of all interpreters or only of those in `names`.

    Raises:
        InputError: there is no such interpreter, or no such folder.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"there is no folder of data {root}")
    chosen = [find("interpreter", name) for name in names] or list(cards("interpreter"))
    folder = out / "interpreter-gallery"
    folder.mkdir(parents=True, exist_ok=True)
    pictured = subjects(root, seed)
    console = Console(stderr=True)
    shown = [show(card, pictured) for card in track(chosen, "interpreters", console=console)]
    by_name = {subject.name: subject for subject in pictured}
    for one in shown:
        for word in one.words:
            console.print(f"{one.card.name}: {word}", soft_wrap=True)
        if one.pictures:
            save_small(_strip(one, by_name), folder / f"{one.card.name}.webp")
    for subject in pictured:
        slug = subject.name.replace(" ", "-")
        save_small(all_maps(shown, subject), folder / f"all-{slug}.webp", max_bytes=350_000)
    save_small(all_classes(pictured[0], names), folder / "classes.webp", max_bytes=450_000)
    place = out / "interpreter-gallery.md"
    place.write_text(page(shown, pictured), encoding="utf-8")
    return place


if __name__ == "__main__":
    galleries.main("interpreter", write)
