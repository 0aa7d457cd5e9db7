"""Transfer: how many images the attacks on every source fool on every victim, from the tables of the ledger.

Only images count that every source and every victim classifies correctly. With several seeds of an attack, an image
counts by the seed that fools it most. The rate on a victim without random defences has a Clopper-Pearson interval over
the images. A random victim is evaluated several times on each image, after the attack and on fresh draws: its rate is
the mean over the images of the share of the draws that are fooled, with a bootstrap interval over the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from underfire.audit.around_through import AROUND, Comparison, Found, comparisons, success
from underfire.audit.reading import Source
from underfire.records import Interval


@dataclass(frozen=True)
class TransferResult:
    """The attack on one source at one size, as one victim sees it.

    Attributes:
        way: one of `underfire.audit.kinds.transfer.WAYS`; of an attack through a defence, the source is the victim.
        draws: how often the victim was evaluated on each image, after the attack.
        success: share of the images that count on which the victim is fooled.
    """

    source: str
    victim: str
    way: str
    attack: str
    label: str
    norm: str
    eps: float
    targeted: bool
    draws: int
    success: Interval


@dataclass(frozen=True)
class TransferMean:
    """The attack on one source at one size, averaged over the victims that it was not crafted on.

    Attributes:
        victims: their number; those with the weights of the source, and without a defence, are left out.
        success: mean over these victims of the share of fooled images, with a bootstrap interval over the images.
    """

    source: str
    label: str
    norm: str
    eps: float
    victims: int
    success: Interval


@dataclass(frozen=True)
class TransferSample:
    """The images that count.

    Attributes:
        hash: a hash of their names, labels and pixels.
        n: their number.
        of: number of images that were attacked.
        fewest: number of images of the class that has fewest, of those with at least one.
        most: number of images of the class that has most.
    """

    hash: str
    n: int
    of: int
    fewest: int
    most: int


@dataclass(frozen=True)
class Refused:
    """An attack that could not be run for a victim, with the reason."""

    source: str
    victim: str
    way: str
    label: str
    reason: str


@dataclass(frozen=True)
class Transfer:
    """All results on transfer.

    Attributes:
        sample: the images that count.
        results: every attack on every source at every size, on every victim.
        means: the same over the victims that it was not crafted on.
        defenses: for every defended victim, the attacks through its defences beside those around them.
        refused: what could not be run.
    """

    sample: TransferSample
    results: tuple[TransferResult, ...]
    means: tuple[TransferMean, ...]
    defenses: tuple[Comparison, ...]
    refused: tuple[Refused, ...]

    @property
    def best(self) -> TransferMean | None:
        """The attack with the highest mean success over victims; None if no attack reached another model."""
        return max(self.means, key=lambda entry: entry.success.value, default=None)


_IMAGES = """
SELECT source, victim, way, attack, label, norm, eps, id, any_value(targeted) AS targeted, any_value(draws) AS draws,
       max(fooled) AS fooled
FROM transfer WHERE counted GROUP BY source, victim, way, attack, label, norm, eps, id
"""


def transfer(source: Source) -> Transfer | None:
    """Return the results on transfer of a ledger; None without victims, or before the first result."""
    sample = _sample(source)
    query = f"""
    SELECT source, victim, way, attack, label, norm, eps, any_value(targeted) AS targeted, any_value(draws) AS draws,
           list(id) AS ids, list(fooled) AS fooled
    FROM ({_IMAGES}) GROUP BY source, victim, way, attack, label, norm, eps
    ORDER BY source, label, norm, eps, victim, way
    """
    rows = _aligned(source.sql(query))
    refused = source.sql(
        "SELECT DISTINCT source, victim, way, label, refused AS reason FROM transfer WHERE eps IS NULL"
    )
    if sample is None or not (rows or refused):
        return None
    absent = tuple(Refused(**row) for row in sorted(refused, key=lambda row: (row["victim"], row["label"])))
    results = [_result(row) for row in rows]
    return Transfer(sample, tuple(results), tuple(_means(rows)), tuple(_defenses(rows, absent)), absent)


def _aligned(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with `fooled` over the same images, in the order of their ids; nan where there is no result."""
    place = {name: i for i, name in enumerate(sorted({name for row in rows for name in row["ids"]}))}
    aligned = []
    for row in rows:
        fooled = np.full(len(place), np.nan)
        fooled[[place[name] for name in row.pop("ids")]] = row["fooled"]
        aligned.append({**row, "fooled": fooled})
    return aligned


def _result(row: Mapping[str, Any]) -> TransferResult:
    plain = {key: value for key, value in row.items() if key != "fooled"}
    return TransferResult(**plain, success=success(row["fooled"]))


def _means(rows: Sequence[Mapping[str, Any]]) -> list[TransferMean]:
    """Return the means of every attack on every source over the victims that it was not crafted on.

    Only images count that were shown to all of these victims: in a run that is not finished, there may be none.
    """
    groups: dict[tuple[str, str, str, float], list[Any]] = {}
    for row in rows:
        if row["way"] in AROUND:
            groups.setdefault((row["source"], row["label"], row["norm"], row["eps"]), []).append(row["fooled"])
    means = [(key, len(each), np.mean(each, axis=0)) for key, each in groups.items()]
    return [TransferMean(*key, n, success(mean)) for key, n, mean in means if not np.isnan(mean).all()]


def _defenses(rows: Sequence[Mapping[str, Any]], refused: Sequence[Refused]) -> list[Comparison]:
    """Return the comparison of attacks through and around the defences of every victim that has any."""
    found = [Found(row["victim"], row["way"], row["label"], row["norm"], row["eps"], row["fooled"]) for row in rows]
    blind = {(entry.victim, entry.label) for entry in refused if entry.way == "through without BPDA"}
    return comparisons(found, blind)


def _sample(source: Source) -> TransferSample | None:
    query = """
    SELECT any_value(hash) AS hash, sum(n) AS n, sum(images) AS images, min(n) FILTER (n > 0) AS fewest, max(n) AS most
    FROM (SELECT y, any_value(hash) AS hash, count(*) FILTER (counted) AS n, count(*) AS images FROM sample GROUP BY y)
    """
    row = source.sql(query)[0]
    if not row["n"]:
        return None
    return TransferSample(row["hash"], int(row["n"]), int(row["images"]), int(row["fewest"]), int(row["most"]))
