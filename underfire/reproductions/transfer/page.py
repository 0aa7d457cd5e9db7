"""Write the table of a transfer experiment: a row for each attack on each source, a column for each victim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from underfire.audit.ledger import Ledger
from underfire.audit.sizes import size
from underfire.audit.transfer import Transfer, TransferResult, transfer
from underfire.records import Interval
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, as_results, as_table
from underfire.reproductions.transfer.grid import Grid

HOW = """Each cell is the share of the images on which the victim is fooled, with its 95 % interval: Clopper-Pearson
over the images, or for a random victim, which is evaluated after the attack, 5 times, on fresh draws, a bootstrap
over the images. Only images count that every source and every victim classifies correctly. *White-box* cells, where
the attack knows the victim itself, are in italics and in no mean. In a run of usual size, attacks average over fewer
samples than published, and the inner loop of ATTA is shorter; the spec below has the numbers. A claim holds if the
estimate agrees; it is significant if the 95 % bootstrap interval of the difference, paired image by image, does not
contain 0."""


def outcome(
    grid: Grid,
    setting: Setting,
    ledger: Ledger,
    decisions: Sequence[Decision],
    *,
    title: str,
    source: str,
    notes: Sequence[str],
) -> Outcome:
    """Return the outcome of an experiment, with its table and what must hold."""
    found = transfer(ledger)
    assert found is not None  # the audit has victims
    sample = found.sample
    drawn = ledger.spec.sample
    of_each = f"{sample.fewest} to {sample.most}" if sample.fewest < sample.most else sample.most
    told = f"n = {sample.n} images, {of_each} of each class, sample `{sample.hash}`"
    told += f"; {drawn.available} of {drawn.looked} images were right for all." if drawn and drawn.looked else "."
    victims = list(grid.victims)
    return Outcome(
        title=title,
        source=source,
        spec=grid.spec(setting),
        columns=("source", "attack", "eps", *victims, "mean over other networks"),
        rows=rows(found, victims),
        notes=[HOW, told, *([as_table(decisions)] if decisions else []), *notes],
        results={"transfer": _plain(found), "claims": as_results(decisions)},
    )


def rows(found: Transfer, victims: Sequence[str]) -> list[list[str]]:
    """Return the cells of the table as text, without attacks through defences."""
    means = {(m.source, m.label, m.eps): m.success for m in found.means}
    groups: dict[tuple[str, str, float], dict[str, TransferResult]] = {}
    for one in found.results:
        if "through" not in one.way:
            groups.setdefault((one.source, one.label, one.eps), {})[one.victim] = one
    return [
        [key[0], key[1], size("linf", key[2]), *(_cell(row.get(v)) for v in victims), show(means.get(key))]
        for key, row in groups.items()
    ]


def _cell(one: TransferResult | None) -> str:
    if one is None:
        return "–"
    return f"*{show(one.success)}*" if one.way == "white-box" else show(one.success)


def show(rate: Interval | None) -> str:
    """Return a rate in per cent with its interval."""
    return "–" if rate is None else f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _plain(found: Transfer) -> Mapping[str, Any]:
    keys = ("sample", "results", "means", "defenses")
    return {key: getattr(found, key) for key in keys}
