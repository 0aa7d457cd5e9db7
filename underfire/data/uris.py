"""Open a data set from its URI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from underfire.data import arrays, cluttered, digits, folders, hubs, idx, pairs, parquet
from underfire.data.dataset import Dataset, Source
from underfire.data.images import MAX_BYTES, MAX_PIXELS, Reading
from underfire.errors import DataError, nearest, shown

Options = dict[str, str]
_READING = ("size", "mode", "max_pixels")  # of sources that decode images
_COMMON = ("labels", "unreadable")  # of all


@dataclass(frozen=True)
class Scheme:
    """A scheme of URIs: the function that opens a source, and the options that may follow the question mark."""

    open: Callable[[str, Options, Reading], Source]
    options: tuple[str, ...] = ()


def _choice(options: Options, key: str, choices: tuple[str, ...]) -> str:
    """Return the value of an option, which is the first of the choices if it is not given."""
    value = options.get(key, choices[0])
    if value not in choices:
        raise DataError(f"unknown {key} {value!r}; {nearest(value, choices)}")
    return value


def _split(name: str) -> str:
    return _choice({"split": name} if name else {}, "split", ("test", "train"))


def _whole(options: Options, key: str, default: int) -> int:
    """Return the value of an option that is a whole number of at least 1."""
    text = options.get(key, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) > 0):
        raise DataError(f"{key} must be a whole number of at least 1, got {text[:40]!r}")
    return int(text)


def _max_bytes(options: Options) -> int:
    return _whole(options, "max_bytes", MAX_BYTES)


def _reading(options: Options, channels: int | None) -> Reading:
    """Return how images are read: grey by the option `mode`, or without it if the model takes one channel."""
    size = _whole(options, "size", 1) if "size" in options else None
    mode = options.get("mode", "L" if channels == 1 else "RGB")
    return Reading(size, mode, _whole(options, "max_pixels", MAX_PIXELS))


def _folder(path: str, options: Options, reading: Reading) -> Source:
    masks = Path(options["masks"]) if options.get("masks") else None
    nearest_folder = _choice(options, "class", ("first", "nearest")) == "nearest"
    return folders.open_folder(Path(path), reading, nearest_folder, masks)


def _csv(path: str, options: Options, reading: Reading) -> Source:
    return folders.open_csv(Path(path), reading, options.get("image"), options.get("label"))


def _parquet(path: str, options: Options, reading: Reading) -> Source:
    columns = options.get("image"), options.get("label")
    return parquet.ParquetImages(Path(path), reading, *columns, _max_bytes(options))


def _npz(path: str, options: Options, _: Reading) -> Source:
    columns = options.get("image"), options.get("label")
    return arrays.Arrays(Path(path), _split(options.get("split", "")), *columns, _max_bytes(options))


def _mnist(path: str, options: Options, _: Reading) -> Source:
    return idx.Mnist(Path(path), _split(options.get("split", "")), _max_bytes(options))


def _torchvision(name: str, options: Options, reading: Reading) -> Source:
    if not options.get("root"):
        raise DataError(
            f"torchvision: needs the folder of the files, as in torchvision:{name or 'CIFAR10'}?root=FOLDER"
        )
    return hubs.torchvision(name, options["root"], _split(options.get("split", "")), reading)


_COLUMNS = ("image", "label")
SCHEMES = {
    "digits": Scheme(lambda path, *_: digits.Digits(_split(path))),
    "cluttered-digits": Scheme(lambda path, *_: cluttered.ClutteredDigits(_split(path))),
    "mnist": Scheme(_mnist, ("split", "max_bytes")),
    "folder": Scheme(_folder, ("class", "masks", *_READING)),
    "csv": Scheme(_csv, (*_COLUMNS, *_READING)),
    "parquet": Scheme(_parquet, (*_COLUMNS, *_READING, "max_bytes")),
    "npz": Scheme(_npz, (*_COLUMNS, "split", "max_bytes")),
    "python": Scheme(
        lambda path, options, reading: pairs.from_python(path, reading, _max_bytes(options)), (*_READING, "max_bytes")
    ),
    "torchvision": Scheme(_torchvision, ("root", "split", *_READING)),
    "hf": Scheme(hubs.hugging_face, ("split", "config", "revision", *_COLUMNS, *_READING)),
}


def load(uri: str, *, n: int | None = None, seed: int = 0, channels: int | None = None) -> Dataset:
    """Return the data set that `uri` names; if `n` is given, a random subset of `n` images, drawn by `seed`.

    The URIs are `digits:` and `cluttered-digits:` (`train` or `test` may follow; the default is `test`),
    `mnist:FOLDER?split=test`, `folder:FOLDER?size=224`, `csv:FILE`, `parquet:FILE`, `npz:FILE`, `python:MODULE:NAME`,
    `torchvision:NAME?root=FOLDER&split=test` and `hf:NAME?split=test`. With `unreadable=skip`, images that cannot be
    read are left out, after the draw; with `labels=model`, the labels in the data are not used.

    Args:
        uri: the data.
        n: number of images to draw; None takes all.
        seed: the seed of the draw.
        channels: the channels that a model takes; 1 reads image files as grey unless the URI states a `mode`.

    Raises:
        DataError: the scheme or an option is unknown, a file is missing, damaged or larger than allowed, or `n` is
            larger than the data set.
        MissingExtra: the scheme needs a package that is not installed.
    """
    if not isinstance(uri, str):
        raise DataError(f"data is named by a text such as 'folder:images', got {shown(uri)}")
    name, colon, rest = uri.partition(":")
    if not colon or name not in SCHEMES:
        raise DataError(f"unknown data {uri[:200]!r}; {nearest(name[:40] + ':', (scheme + ':' for scheme in SCHEMES))}")
    path, _, query = rest.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True))
    except ValueError as error:
        raise DataError(f"{name}: the options after ? cannot be read: {error}") from None
    known = (*SCHEMES[name].options, *_COMMON)
    for word in options:
        if word not in known:
            raise DataError(f"{name}: has no option {word!r}; {nearest(word, known)}")
    if "\0" in path:
        raise DataError(f"{name}: a path cannot have a null character, got {path!r}")
    skip = _choice(options, "unreadable", ("refuse", "skip")) == "skip"
    dataset = Dataset(uri, SCHEMES[name].open(path, options, _reading(options, channels)))
    if _choice(options, "labels", ("data", "model")) == "model":
        dataset = dataset.without_labels()
    dataset = dataset if n is None else dataset.subset(n, seed)
    return dataset.readable() if skip else dataset
