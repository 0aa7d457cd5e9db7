"""Open data sets of torchvision and of the Hugging Face hub; both packages are extras, imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from underfire.data.columns import IMAGE_COLUMNS, column, label_column
from underfire.data.images import Reading
from underfire.data.pairs import Pairs
from underfire.errors import DataError, MissingExtra, nearest
from underfire.extras import declare_missing_operators


def torchvision(name: str, root: str, split: str, reading: Reading) -> Pairs:
    """Return a data set of `torchvision.datasets` whose files are in `root`; nothing is downloaded."""
    declare_missing_operators()
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtra("torchvision") from error
    kinds = [k for k, v in vars(datasets).items() if isinstance(v, type)]
    if name not in kinds:
        raise DataError(f"torchvision has no data set {name!r}; {nearest(name, kinds)}")
    build = getattr(datasets, name)
    try:
        try:
            items = build(root, train=split == "train", download=False)
        except TypeError:  # half of the data sets have `split` instead of `train`
            items = build(root, split=split)
    except Exception as error:  # each of its data sets raises errors of its own
        raise DataError(f"torchvision:{name} cannot be read from {root!r}: {error}".splitlines()[0]) from error
    names = getattr(items, "classes", None) or ()
    # the classes of ImageNet have several names each
    labels = [", ".join(map(str, entry)) if isinstance(entry, (tuple, list)) else str(entry) for entry in names]
    return Pairs(items, labels, f"{name}-{split}", reading)


def hugging_face(name: str, options: Mapping[str, str], reading: Reading) -> Pairs:
    """Return a data set of the Hugging Face hub.

    Args:
        name: its name on the hub, or a folder.
        options: `split` (`test` if not given), `config`, `revision` (a branch, a tag or a commit), and the columns
            `image` and `label`, which are looked for by their usual names otherwise.
        reading: how images become tensors.

    Raises:
        DataError: the data cannot be loaded, or has no such columns.
        MissingExtra: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra("datasets") from error
    split = options.get("split", "test")
    more = {key: options[key] for key in ("revision",) if key in options}
    config = [options["config"]] if "config" in options else []
    try:
        table = datasets.load_dataset(name, *config, split=split, **more)
    except Exception as error:  # a client of a hub raises errors of many kinds
        raise DataError(f"hf:{name}?split={split} cannot be loaded: {error}".splitlines()[0]) from error
    image = column(list(table.features), options.get("image"), IMAGE_COLUMNS, "image", f"hf:{name}")
    label = label_column(list(table.features), options.get("label"), image, f"hf:{name}")
    names = getattr(table.features[label], "names", None) if label else None
    return Pairs(_Rows(table, image, label), names, f"{name}-{split}", reading)


class _Rows:
    """The rows of a Hugging Face data set as pairs `(image, label)`, or as images if there is no column of labels."""

    def __init__(self, table: Any, image: str, label: str | None) -> None:
        self._table, self._image, self._label = table, image, label

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> Any:
        row = self._table[i]
        return row[self._image] if self._label is None else (row[self._image], row[self._label])
