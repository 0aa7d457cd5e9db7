"""Draw one picture of every attack of the catalogue: `python -m tools.attack_gallery`.

The command writes `gallery.md` and one small figure for each attack: the clean image, the magnified change, and the
adversarial image. With `--data`, the images are photographs and images of CIFAR-10, otherwise digits of the package.
The two photographs come with scikit-image and are in the public domain (CC0).
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from tools.interpreter_gallery import square
from underfire import data, models
from underfire.catalog import Card, cards, find
from underfire.errors import InputError, UnderfireError
from underfire.figures import heatmap, magnify, save_small, sheet
from underfire.interpreters import cam
from underfire.measures import perturbation, prediction
from underfire.measures.maps import normalise
from underfire.model import Classifier

TRIES = 3  # the most images that are attacked until the attack succeeds on one
BATCH = 16  # images of a subject; a universal perturbation is made from all of them
STEPS, QUERIES = 200, 3000  # larger defaults are reduced to these, unless SETTINGS says otherwise


@dataclass(frozen=True)
class Subject:
    """A model, and images `x` with labels `y` that it classifies correctly."""

    name: str
    model: Classifier
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Setting:
    """The subject and the options with which an attack is shown.

    Attributes:
        on: subjects in order of preference; the first that exists and that the attack accepts is shown.
        options: the options of the attack that differ from its defaults.
    """

    on: tuple[str, ...] = ("photographs", "digits")
    options: Mapping[str, Any] = field(default_factory=dict)


_SMALL = ("cifar", "digits")
#: Settings that differ from the default: white-box attacks on photographs, other attacks on small images.
SETTINGS: dict[str, Setting] = {
    "adv2": Setting(options={"interpreter": cam}),
    "adv2_black_box": Setting(on=_SMALL, options={"interpreter": cam, "eps": 0.1, "queries": 3000}),
    "adversarial_patch": Setting(options={"eps": 0.15}),
    "adversarial_transformation": Setting(on=_SMALL, options={"eps": 0.1}),
    "at_si_ni_ti_dim": Setting(on=_SMALL),
    "atta": Setting(on=_SMALL),
    "autoattack": Setting(options={"queries": 1000}),
    "carlini_wagner": Setting(options={"steps": 100, "binary_search_steps": 4}),
    "decision_tree": Setting(on=("tree",)),
    "ead": Setting(options={"steps": 100, "binary_search_steps": 4}),
    "ensemble_transfer": Setting(on=("ensemble",)),
    "explanation_and_prediction": Setting(options={"interpreter": cam}),
    "explanation_only": Setting(options={"interpreter": cam}),
    "explanation_only_black_box": Setting(on=_SMALL, options={"interpreter": cam, "eps": 0.1, "queries": 3000}),
    "fgvm": Setting(options={"eps": 5.0}),
    "fooling_images": Setting(on=_SMALL, options={"encoding": "cppn", "steps": 100, "population": 50}),
    "jsma": Setting(on=_SMALL),
    "lbfgs": Setting(options={"binary_search_steps": 4, "candidates": 1}),
    "logit_attack": Setting(on=_SMALL),
    "nes": Setting(on=_SMALL, options={"eps": 16 / 255, "queries": 6000}),
    "one_pixel": Setting(on=_SMALL, options={"eps": 5}),
    "ops": Setting(on=_SMALL),
    "photometric": Setting(options={"values": 11}),
    "sgm": Setting(on=("cifar",)),
    "substitute": Setting(on=("digits",)),
    "svre": Setting(on=("ensemble",)),
    "uap": Setting(on=_SMALL, options={"eps": 24 / 255}),
    "zoo": Setting(on=_SMALL, options={"queries": 20_000}),
}


@dataclass(frozen=True)
class ShownAttack:
    """The result of one attack.

    Attributes:
        card: the attack.
        caption: subject, settings and measurements; or the reason why there is no picture.
        alt: the alternative text of the picture; empty where there is none.
    """

    card: Card
    caption: str
    alt: str = ""


# --- subjects --------------------------------------------------------------------------------------------------------


def subjects(root: Path | None, seed: int) -> dict[str, Callable[[], Subject]]:
    """Return a function by the name of each subject, which makes the subject when it is first called."""
    found: dict[str, Callable[[], Subject]] = {
        "digits": lambda: _right(
            "a digit among others", models.load("zoo:cluttered_digits"), "cluttered-digits:", seed
        ),
        "tree": lambda: _right("a digit, 8 x 8 pixels", _tree(seed), "digits:", seed),
    }
    if root is not None:
        name = "mobilenet_v1_075_imagenet"
        found["photographs"] = lambda: _photographs(models.load(f"{root / 'weights' / name}.safetensors?arch={name}"))
        small, larger = (
            f"{root / 'weights' / f'resnet{depth}_cifar10.safetensors'}?arch=resnet{depth}_cifar10"
            for depth in (20, 32)
        )
        cifar = f"parquet:{root / 'cifar10-test.parquet'}"
        found["cifar"] = lambda: _right("an image of CIFAR-10", models.load(small), cifar, seed)
        found["ensemble"] = lambda: _right(
            "an image of CIFAR-10 for two networks", models.ensemble([small, larger]), cifar, seed
        )
    return {name: cache(make) for name, make in found.items()}


def _right(name: str, model: Classifier, uri: str, seed: int) -> Subject:
    """Return the subject with correctly classified images on which the model's confidence is above the median."""
    batch = data.load(uri, n=4 * BATCH, seed=seed)[:]
    logits = model.predict(batch.x, chunk=BATCH)
    confidence = prediction.confidence(logits, batch.y) * (logits.argmax(1) == batch.y)
    rows = ((confidence > 0) & (confidence >= confidence.median())).nonzero().squeeze(1)[:BATCH]
    return Subject(name, model, batch.x[rows], batch.y[rows])


def _photographs(model: Classifier) -> Subject:
    """Return the cup of coffee and the cat of scikit-image; their labels are the classes that the model predicts."""
    from skimage.data import chelsea, coffee

    x = torch.cat([square(torch.from_numpy(picture)) for picture in (coffee(), chelsea())])
    return Subject("a photograph", model, x, model.predict(x).argmax(1))


def _tree(seed: int) -> Classifier:
    """Return a decision tree, trained on the digits of scikit-learn."""
    from sklearn.tree import DecisionTreeClassifier

    batch = data.load("digits:train")[:]
    tree = DecisionTreeClassifier(max_depth=10, random_state=seed).fit(batch.x.flatten(1).numpy(), batch.y.numpy())
    return models.from_sklearn(tree, tuple(batch.x.shape[1:]))


# --- one attack ------------------------------------------------------------------------------------------------------


def setting_of(card: Card) -> Setting:
    """Return the setting of an attack from SETTINGS, completed from its card."""
    large = card.facts.knowledge == "white-box" and not card.facts.universal
    default = Setting() if large else Setting(on=_SMALL)
    chosen = SETTINGS.get(card.name, default)
    options = dict(chosen.options)
    # reduce the defaults that take long
    for name, most in (("steps", STEPS), ("queries", QUERIES)):
        usual = card.options[name].default if name in card.options else None
        if isinstance(usual, int) and usual > most:
            options.setdefault(name, most)
    return Setting(chosen.on, options)


def show(card: Card, available: Mapping[str, Callable[[], Subject]], folder: Path, seed: int) -> ShownAttack:
    """Attack an image, write its picture `NAME.webp` into the folder, and return the result."""
    setting = setting_of(card)
    missing = [n for n, p in card.options.items() if p.default is inspect.Parameter.empty and n not in setting.options]
    if missing:
        return ShownAttack(card, f"Not shown: it needs the options {', '.join(missing)}.")
    reason = "no subject is available"
    for name in setting.on:
        if name not in available:
            continue
        subject = available[name]()
        try:
            x, x_adv, y = _attacked(card, subject, setting.options, seed)
        except UnderfireError as error:
            reason = str(error)
            continue
        return _draw(card, subject, setting.options, x, x_adv, y, folder / f"{card.name}.webp")
    return ShownAttack(card, f"Not shown: {reason}.")


def _attacked(card: Card, subject: Subject, options: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first image on which the attack succeeds, or the last one tried: clean, adversarial, label."""
    universal = card.facts.universal
    tries = 1 if universal else min(TRIES, len(subject.x))
    for i in range(tries):
        rows = slice(None) if universal else slice(i, i + 1)
        x, y = subject.x[rows], subject.y[rows]
        classes = subject.model(x[:1]).shape[1]
        goal = None if "untargeted" in card.facts.goals else (y + classes // 2) % classes
        x_adv = card(subject.model, x, y, goal=goal, generator=torch.Generator().manual_seed(seed), **options).detach()
        fooled = subject.model.predict(x_adv).argmax(1) != y
        if bool(fooled.any()):
            break
    place = int(fooled.float().argmax())
    return x[place], x_adv[place], y[place]


def _draw(
    card: Card, subject: Subject, options: Mapping[str, Any], x: Tensor, x_adv: Tensor, y: Tensor, path: Path
) -> ShownAttack:
    """Write the figure of one attack, and return its caption and alternative text."""
    change, factor = magnify(x, x_adv)
    logits = subject.model.predict(torch.stack([x, x_adv]))
    classes = logits.argmax(1)
    before, after = (
        f"{subject.model.name_of(int(k)).split(',')[0]}, {c:.0%}"
        for k, c in zip(classes, prediction.confidence(logits, classes).tolist(), strict=True)
    )
    rows: list[list[Tensor | None]] = [[x, change, x_adv]]
    alt = f"{card.name}: {before}; the change times {factor:.3g}; afterwards {after}"
    if "interpreter" in options:
        both_maps = options["interpreter"](subject.model, torch.stack([x, x_adv]), classes).detach()
        # Min-max normalised, as the attack compares them.
        maps = [heatmap(m, image) for m, image in zip(normalise(both_maps), (x, x_adv), strict=True)]
        rows.append([maps[0], None, maps[1]])
        alt += "; below, the explanation of the prediction before and after"
    titles = [f"clean: {before}", f"change × {factor:.3g}", f"adversarial: {after}"]
    save_small(sheet(rows, column_titles=titles), path)
    settings = ", ".join(f"{name}={_word(value)}" for name, value in options.items())
    sizes = {norm: float(value) for norm, value in perturbation.sizes(x[None], x_adv[None]).items()}
    share = sizes["l0"] / x.numel()
    caption = (
        f"On {subject.name}, {f'with `{settings}`' if settings else 'with its defaults'}. Largest change "
        f"{255 * sizes['linf']:.3g}/255, L2 {sizes['l2']:.3g}, {share:.2%} of the values changed."
    )
    if card.facts.keeps_prediction:
        caption += " The attack does not aim at the prediction."
    elif classes[1] == y:
        caption += " The attack failed."
    return ShownAttack(card, caption, alt)


def _word(value: Any) -> str:
    """Format the value of an option; a function by its name."""
    while isinstance(value, partial):
        value = value.func
    return getattr(value, "__name__", None) or (f"{value:.3g}" if isinstance(value, float) else str(value))


# --- the page --------------------------------------------------------------------------------------------------------


_ABOUT = """Every attack of the catalogue on one image: the clean image, the magnified change around mid-grey, and the
adversarial image. The predicted class and its probability stand above each image. Made by
`python -m tools.attack_gallery`; the number of steps and queries is reduced where an attack is slow."""


def page(shown: Sequence[ShownAttack]) -> str:
    """Return the page, a section for each attack in the given order."""
    lines = ["# Gallery", "", _ABOUT]
    for one in shown:
        lines += ["", f"## {one.card.name}", "", f"{one.card.summary} ({one.card.paper})", ""]
        if one.alt:
            lines += [f"![{one.alt}](gallery/{one.card.name}.webp)", ""]
        lines.append(one.caption)
    return "\n".join(lines) + "\n"


def write(out: Path, *, root: Path | None = None, names: Sequence[str] = (), seed: int = 0) -> Path:
    """Write the page and its pictures into the folder `out`, of all attacks or only of those in `names`.

    Raises:
        InputError: there is no such attack, or no such folder.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"there is no folder of data {root}")
    chosen = [find("attack", name) for name in names] or list(cards("attack"))
    folder = out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    available = subjects(root, seed)
    console = Console(stderr=True)
    shown = [show(card, available, folder, seed) for card in track(chosen, "attacks", console=console)]
    for one in shown:
        if not one.alt:
            console.print(f"{one.card.name}: {one.caption}", soft_wrap=True)
    place = out / "gallery.md"
    place.write_text(page(shown), encoding="utf-8")
    return place


def main() -> None:
    """Draw the gallery, with the options of the command line."""
    parser = argparse.ArgumentParser(description="Draw every attack of the catalogue.")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page")
    parser.add_argument("--data", type=Path, help="folder of real data and weights")
    parser.add_argument("--only", nargs="+", default=[], help="names of the attacks to draw; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"written to {write(options.out, root=options.data, names=options.only, seed=options.seed)}")


if __name__ == "__main__":
    main()
