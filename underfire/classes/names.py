"""Compare the names of the classes of a data set with those of a model, and make names printable."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from underfire.classes.lists import imagenet
from underfire.errors import DataError, InputError

# Control characters, which a terminal obeys, and lone surrogates, which stand for bytes that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PARTS = re.compile(r"\s*[,;/|()]\s*|\s+-\s+")
_GENERIC = re.compile(r"(?:label|class)[ _-]?(\d{1,9})", re.IGNORECASE)


def printable(text: str) -> str:
    r"""Return `text` with escapes for what cannot be printed or stored: control characters and lone surrogates.

    >>> printable("caf\udce9.png")
    'caf\\xe9.png'
    """

    def escape(found: re.Match[str]) -> str:
        code = ord(found[0])
        if 0xDC80 <= code <= 0xDCFF:  # how Python shows a byte of a file name that is not UTF-8
            code -= 0xDC00
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return _UNPRINTABLE.sub(escape, text)


def listing(names: Sequence[str], most: int = 8) -> str:
    """Return names as text, at most `most` of them and 40 characters of each, with their number if some are left out.

    >>> listing(["cat", "dog", "emu"], most=2)
    "'cat', 'dog', ... (3 in all)"
    """
    shown = ", ".join(repr(name if len(name) <= 40 else f"{name[:37]}...") for name in names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown or "(none)"


def are_numbers(names: Sequence[str] | None) -> bool:
    """Return whether names only repeat the numbers of their classes, as `LABEL_0` and `class 1` do; True for None.

    >>> are_numbers(["LABEL_0", "LABEL_1"]), are_numbers(["0", "1"])
    (True, False)
    """
    found = [_GENERIC.fullmatch(name) for name in names or ()]
    return all(hit is not None and int(hit[1]) == i for i, hit in enumerate(found))


def match(data: Sequence[str], model: Sequence[str]) -> list[int | None]:
    """Return for each class of the data the number of the model's class of that name; None if none or several fit.

    Case, spaces, hyphens and underscores do not count. One of several names is enough (`"tench, Tinca tinca"`), and a
    synset of ImageNet stands for its class. Names that are numbers are the numbers of the model's classes, if the model
    has other names. No two classes of the data get the same class.
    """
    # ImageNet: the names are not unique ("crane"), so the synsets decide
    ranks = {synset: i for i, synset in enumerate(imagenet())}
    if all(name in ranks for name in data) and _is_imagenet(model):
        return [ranks[name] for name in data]
    # class numbers
    if all(name.isdecimal() and len(name) < 10 for name in data) and not any(name.isdecimal() for name in model):
        return _once([int(name) if int(name) < len(model) else None for name in data])
    # names: a match of the whole name is preferred to a match of a part
    whole: dict[str, list[int]] = {}
    parts: dict[str, list[int]] = {}
    for i, name in enumerate(model):
        spelled = _spellings(name)
        whole.setdefault(spelled[0], []).append(i)
        for part in dict.fromkeys(spelled[1:]):
            parts.setdefault(part, []).append(i)
    found: list[int | None] = []
    for i, name in enumerate(data):
        spelled = _spellings(name)
        hits = next((table[text] for text in spelled for table in (whole, parts) if text in table), [])
        found.append(hits[0] if len(hits) == 1 else i if i in hits else None)
    return _once(found)


def check_names(
    data: Sequence[str], model: Sequence[str], order: Sequence[int | None], whose: str, advice: str
) -> None:
    """Raise DataError with both lists of names unless `match` found every class of the data.

    Args:
        data: names of the classes of the data.
        model: the names that they were compared with.
        order: what `match` returned.
        whose: the owner of the other names in the message, such as `"the model"`.
        advice: what the user can do.
    """
    missing = [name for name, place in zip(data, order, strict=True) if place is None]
    if missing:
        both = f"the data has {listing(data)}; {whose} has {listing(model)}"
        which = f"{len(missing)} of {len(data)} classes of the data have no counterpart"
        which += f": {listing(missing, 4)}" if len(missing) < len(data) else ""
        raise DataError(f"{which}; {both}; {advice}")


def _once(found: list[int | None]) -> list[int | None]:
    """Return `found` with None for every class that an earlier entry has already."""
    first = {place: i for i, place in reversed(list(enumerate(found)))}
    return [place if first[place] == i else None for i, place in enumerate(found)]


def _is_imagenet(model: Sequence[str]) -> bool:
    """Return whether most of the names are those of ImageNet, each in its usual place."""
    known = imagenet()
    if len(model) != len(known):
        return False
    same = sum(bool(set(_spellings(a)) & set(_spellings(b))) for a, b in zip(known, model, strict=True))
    return same > len(known) / 2


def _spellings(name: str) -> list[str]:
    """Return the ways to write a name, normalised: the whole, its parts, and what an ImageNet synset stands for."""
    names = [name, *_PARTS.split(name)]
    if name in imagenet():
        names.append(imagenet()[name])
    return [text for text in (_plain(part) for part in names) if text]


def _plain(name: str) -> str:
    """Return a name in lower case, with one space for everything that is neither letter nor digit."""
    text = unicodedata.normalize("NFKC", name).casefold()
    words = re.sub(r"[\W_]+", " ", text).strip() or text
    return str(int(words)) if words.isdecimal() and len(words) < 10 else words


def class_number(text: str, names: Sequence[str], outputs: int) -> int:
    """Return the class that `text` names, by name or by number.

    Args:
        text: a name or a number.
        names: the names of the classes, in order; empty if they have none.
        outputs: number of classes.

    Raises:
        InputError: there is no such class; the message suggests the nearest.
    """
    if text in names:
        return names.index(text)
    if text.isdecimal() and len(text) < 19 and int(text) < outputs:
        return int(text)
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}? " if close else ""
    way = "a name or a number" if names else "a number"
    raise InputError(f"the model has no class {text!r}; {hint}use {way} from 0 to {outputs - 1}")
