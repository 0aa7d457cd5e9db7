"""Open a data set from its URI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from underfire.data import cluttered, digits, files, hubs
from underfire.data.dataset import Dataset, Source
from underfire.errors import DataError, nearest

Options = dict[str, str]


@dataclass(frozen=True)
class Scheme:
    """A scheme of URIs: the function that opens a source, and the options that may follow the question mark."""

    open: Callable[[str, Options], Source]
    options: tuple[str, ...] = ()


def _split(name: str) -> str:
    if name not in ("train", "test"):
        raise DataError(f"unknown split {name!r}; {nearest(name, ('train', 'test'))}")
    return name


def _folder(path: str, options: Options) -> Source:
    size = options.get("size")
    if size is not None and not (size.isdecimal() and int(size) > 0):
        raise DataError(f"folder: size must be a number of pixels, at least 1, got {size!r}")
    return files.Folder(Path(path), None if size is None else int(size))


def _torchvision(name: str, options: Options) -> Source:
    if not options.get("root"):
        raise DataError(
            f"torchvision: needs the folder of the files, as in torchvision:{name or 'CIFAR10'}?root=FOLDER"
        )
    return hubs.torchvision(name, options["root"], _split(options.get("split", "test")))


SCHEMES = {
    "digits": Scheme(lambda path, _: digits.Digits(_split(path or "test"))),
    "cluttered-digits": Scheme(lambda path, _: cluttered.ClutteredDigits(_split(path or "test"))),
    "mnist": Scheme(lambda path, options: files.Mnist(Path(path), _split(options.get("split", "test"))), ("split",)),
    "parquet": Scheme(lambda path, _: files.ParquetImages(Path(path))),
    "folder": Scheme(_folder, ("size",)),
    "torchvision": Scheme(_torchvision, ("root", "split")),
    "hf": Scheme(lambda path, options: hubs.hugging_face(path, options.get("split", "test")), ("split",)),
}


def load(uri: str, *, n: int | None = None, seed: int = 0) -> Dataset:
    """Return the data set that `uri` names; if `n` is given, a random subset of `n` images, drawn by `seed`.

    The URIs are `digits:` and `cluttered-digits:` (`train` or `test` may follow; the default is `test`),
    `mnist:FOLDER?split=test`, `parquet:FILE`, `folder:FOLDER?size=224`, `torchvision:NAME?root=FOLDER&split=test` and
    `hf:NAME?split=test`.

    Raises:
        DataError: the scheme or an option is unknown, a file is missing or damaged, or `n` is larger than the data set.
        MissingExtra: the scheme needs a package that is not installed.
    """
    name, colon, rest = uri.partition(":")
    if not colon or name not in SCHEMES:
        raise DataError(f"unknown data {uri!r}; {nearest(name + ':', (scheme + ':' for scheme in SCHEMES))}")
    path, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for word in options:
        if word not in SCHEMES[name].options:
            raise DataError(f"{name}: has no option {word!r}; {nearest(word, SCHEMES[name].options)}")
    dataset = Dataset(uri, SCHEMES[name].open(path, options))
    return dataset if n is None else dataset.subset(n, seed)
