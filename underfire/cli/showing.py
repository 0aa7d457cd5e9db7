"""`underfire show` and `underfire layers`: print what a method does with its options, and the layers of a model."""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

from rich.table import Table

from underfire.catalog import KINDS, Card, cards, composed
from underfire.cli.shared import ERR, OUT, open_model, print_json
from underfire.errors import InputError, UnderfireError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from underfire.model import Classifier

_SIDES = (224, 32, 28, 64, 8)  # sides in pixels that are tried, if no image is given

EXAMPLES = {
    "attack": "underfire attack {name} photo.jpg --model timm:resnet18 --size 224{options}",
    "defense": "underfire attack pgd photo.jpg --model timm:resnet18 --size 224 --defense {name}",
    "interpreter": "underfire explain {name} photo.jpg --model timm:resnet18 --size 224{options}",
    "measure": "measures: [{name}]   # in a spec",
    "training": "underfire train {name} --model zoo:cluttered_digits --data cluttered-digits:train --out w.safetensors",
    "part": "underfire attack {options} photo.jpg --model timm:resnet18 --size 224 --set {role}={name}",
}
"""A way to use a method of each kind."""


def show(name: str, as_json: bool) -> None:
    """Print every method of this name, with its options, their defaults and meanings, its paper and an example.

    Raises:
        InputError: there is no such method; the message suggests the nearest name.
    """
    known = list(cards())
    found = [card for card in known if card.name == name]
    found = found or [card for kind in KINDS if (card := composed(kind, name)) is not None]
    if not found:
        raise InputError(f"unknown method {name!r}; {nearest(name, {card.name for card in known})}")
    if as_json:
        print_json([_document(card) for card in found])
        return
    for card in sorted(found, key=lambda card: KINDS.index(card.kind)):
        _print(_document(card))


def _document(card: Card[Any]) -> dict[str, Any]:
    """Return the facts of a method as plain values."""
    from underfire.catalog.docstrings import meanings

    texts = meanings(card)
    options = [
        {"name": option, "default": shown_default(parameter), "meaning": texts[option]}
        for option, parameter in card.options.items()
        if option not in ("generator", "goal")
    ]
    return {**card.as_dict(), "options": options, "example": example(card)}


def shown_default(parameter: Parameter) -> str:
    """Return the default of an option as text, sizes of pixels as fractions of 255."""
    if parameter.default is Parameter.empty:
        return "required"
    value = parameter.default
    if isinstance(value, float) and 0 < value < 1 and (255 * value).is_integer():
        return f"{255 * value:.0f}/255"
    if isinstance(value, (bool, int, float, str, tuple, type(None))):
        return str(value)
    return str(getattr(value, "__name__", type(value).__name__))


def example(card: Card[Any]) -> str:
    """Return one line that uses a method."""
    if card.facts.domains and "image" not in card.facts.domains:
        return f"uf.{card.kind}s.{card.name}(model, x, y)"
    chosen = " --reference folder:known" if card.fitted else ""
    if card.kind == "attack":
        size = {"linf": " --eps 8/255", "l2": " --eps 0.5"}.get(card.facts.norms[0], "")
        chosen = size if "eps" in card.options else ""
        chosen += " --interpreter grad_cam" if "interpreter" in card.options else ""
    if card.kind == "defense" and "versions" in card.options:
        return EXAMPLES["defense"].format(name=f"'{{name: {card.name}, versions: [timm:resnet34, timm:vgg16]}}'")
    role = getattr(card.facts, "role", "")
    if role:
        aimed = {"target": "adv2 --interpreter cam", "scheme": "adv2 --interpreter mask"}
        chosen = aimed.get(role, "recipe")
    fields = {"view": "views", "smoothing": "smooth", "estimator": "estimate", "schedule": "step_rule"}
    return EXAMPLES.get(card.kind, "").format(name=card.name, options=chosen, role=fields.get(role, role))


def _print(document: dict[str, Any]) -> None:
    """Print the facts that `_document` returns."""
    OUT.print(f"{document['kind']} {document['name']}", style="bold")
    OUT.print(document["summary"])
    if document["paper"]:
        OUT.print(f"Source: {document['paper']}")
    left_out = ("kind", "name", "summary", "paper", "options", "example", "quick", "domains")
    facts = {key: value for key, value in document.items() if key not in left_out and value not in ("", [], None)}
    OUT.print(", ".join(f"{key.replace('_', ' ')}: {_words(value)}" for key, value in facts.items()), style="dim")
    if document["options"]:
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("option", no_wrap=True)
        table.add_column("default", overflow="fold", max_width=20)
        table.add_column("meaning", overflow="fold")
        for option in document["options"]:
            table.add_row(*(text.replace("`", "") for text in option.values()))
        OUT.print()
        OUT.print(table)
    if document["example"]:
        OUT.print(f"\nExample: {document['example']}", soft_wrap=True)
    OUT.print()


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def layers(uri: str, output: str | None, data: str | None, size: int | None, as_json: bool) -> None:
    """Print the name, the type, the number of parameters and the output shape of every layer of a model.

    Args:
        uri: the model.
        output: how its logits are read.
        data: images whose first one passes through the model; None takes a noise image.
        size: the side of the noise image in pixels; None tries some usual ones.
        as_json: whether to print JSON.
    """
    from underfire.hooks import last_spatial_layer, unwrap

    model = open_model(uri, output, "cpu")
    x = _image(model, data, size)
    shapes: dict[str, list[int]] = {}
    default = ""
    if x is not None:
        shapes = _shapes(model, x)
        try:
            default = last_spatial_layer(model, x)
        except UnderfireError as error:
            ERR.print(f"no layer for maps: {error}")
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "type": type(module).__name__,
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "output": shapes.get(name),
            "default": name == default,
        }
        for name, module in unwrap(model).named_modules()
        if name
    ]
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in ("layer", "type", "parameters", "output"):
        table.add_column(column, justify="right" if column == "parameters" else "left", overflow="fold")
    for row in rows:
        shape = "" if row["output"] is None else " x ".join(map(str, row["output"]))
        table.add_row(row["name"] + " *" * row["default"], row["type"], str(row["parameters"]), shape)
    OUT.print(table)
    if x is not None:
        star = f"; * is the layer that grad_cam reads by default (--set layer={default})" if default else ""
        OUT.print(f"\nOutputs without the batch dimension, for an image {' x '.join(map(str, x.shape[1:]))}{star}")
    else:
        ERR.print("no usual image size fits the model; --size or --data shows the outputs")


def _image(model: Classifier, data: str | None, size: int | None) -> Tensor | None:
    """Return one image that the model takes, `[1, C, H, W]`; None if no usual size fits.

    Raises:
        UnderfireError: the image of `data`, or one of `size` pixels, does not fit.
    """
    import torch

    from underfire.data import load
    from underfire.hooks import channels_of

    known = channels_of(model)
    if data is not None:
        return load(data, channels=known)[0].x
    generator = torch.Generator().manual_seed(0)
    sizes = [(c, s) for s in ((size,) if size else _SIDES) for c in ((known,) if known else (3, 1))]
    for channels, side in sizes:
        x = torch.rand(1, channels, side, side, generator=generator)
        try:
            model.predict(x)
        except UnderfireError:
            if size and channels == sizes[-1][0]:
                raise
            continue
        return x
    return None


def _shapes(model: Classifier, x: Tensor) -> dict[str, list[int]]:
    """Return the shape of the output of every layer that returns one tensor, without the batch dimension."""
    from functools import partial

    from underfire.hooks import readable_layers

    found: dict[str, list[int]] = {}

    def note(name: str, _: Any, __: Any, output: Any) -> None:
        if hasattr(output, "shape"):
            found[name] = list(output.shape[1:])

    handles = [module.register_forward_hook(partial(note, name)) for name, module in readable_layers(model)]
    try:
        model.predict(x)
    finally:
        for handle in handles:
            handle.remove()
    return found
