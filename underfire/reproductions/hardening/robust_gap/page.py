"""Attack the explanations of robustly trained networks, and decide which trainings shrink the gap to the prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from underfire.audit.gaps import Curves, Gap, curves, gap_difference, gaps
from underfire.audit.ledger import Ledger
from underfire.measures.statistics import bootstrap_mean
from underfire.records import Interval
from underfire.reproductions.audits import run_audit
from underfire.reproductions.hardening.robust_gap.families import FAMILIES, TRAININGS, Family, present, spec
from underfire.reproductions.registry import Experiment, Outcome, Setting, table

_WHAT = "The gap between prediction and explanation of robustly trained networks"


@dataclass(frozen=True)
class Measured:
    """The results of the attacks on one network.

    Attributes:
        gaps: the gap by interpreter.
        curves: the results of every image behind it.
        agreement: mean Kendall tau of clean and attacked map, by interpreter, where the attack changes the map alone.
    """

    gaps: Mapping[str, Gap]
    curves: Mapping[str, Curves]
    agreement: Mapping[str, Interval]


def run(setting: Setting) -> Outcome:
    """Attack all networks that there are, and compare the gaps of each family with that of its usual network."""
    return _page(setting, FAMILIES, "")


def _part(name: str) -> Experiment:
    """Return the experiment of one family."""
    note = "A part of `gap-of-robust-models`, whose page has all families."
    title = f"{_WHAT}: {FAMILIES[name].title}"
    return Experiment(f"{title} (a part of gap-of-robust-models).", lambda s: _page(s, {name: FAMILIES[name]}, note))


PARTS = {name: _part(name) for name in FAMILIES}
"""The parts by name: one for each family."""


def measured(family: Family, ledger: Ledger) -> Measured:
    """Return what the ledger of one network says."""
    return Measured(
        {gap.interpreter: gap for gap in gaps(ledger)},
        {one.interpreter: one for one in curves(ledger)},
        {label: _agreement(ledger, label) for label in family.maps},
    )


def _agreement(ledger: Ledger, label: str) -> Interval:
    """Return the mean Kendall tau of the clean map and that of the attack that changes this map alone."""
    rows = ledger.sql(
        "SELECT map_kendall FROM maps JOIN (SELECT DISTINCT id, y, pred_clean FROM rows) USING (id) "
        f"WHERE label = 'only {label}' AND interpreter = '{label}' AND pred_clean = y ORDER BY id"
    )
    return bootstrap_mean([row["map_kendall"] for row in rows])


def _page(setting: Setting, families: Mapping[str, Family], note: str) -> Outcome:
    """Audit the networks of the families, and return the outcome."""
    found: dict[str, dict[str, Measured]] = {}
    for key, family in families.items():
        found[key] = {}
        for name in present(family, setting):
            ledger = run_audit(spec(family, name, setting), f"gap-{key}-{name}", setting)
            found[key][name] = measured(family, ledger)
    labels = list(dict.fromkeys(label for family in families.values() for label in family.maps))
    changes = {key: differences(family, found[key]) for key, family in families.items()}
    missing = [family.title for key, family in families.items() if not found[key]]
    said = [f"{title}: the work folder has no such network; `training-mnist-table` trains them." for title in missing]

    def rows(of: Mapping[str, Mapping[str, Any]], cell: Callable[[Any, str], str]) -> list[list[str]]:
        """Return a row for each network in `of`, with the cell of each interpreter."""
        return [
            [family.title, TRAININGS[name], *(cell(one, label) if label in family.maps else "–" for label in labels)]
            for key, family in families.items()
            for name, one in of[key].items()
        ]

    head = ("network", "training", *labels)
    return Outcome(
        title="Which trainings shrink the gap between prediction and explanation",
        source="the networks of Boopathy et al., ICML 2020, and of Zhang et al. (TRADES), ICML 2019; no published "
        "table compares their gaps",
        spec={
            "networks": {key: list(networks) for key, networks in found.items()},
            **{key: _plain_spec(family, setting) for key, family in families.items() if found[key]},
        },
        columns=("network", "training", *(f"gap of {label}" for label in labels)),
        rows=rows(found, lambda one, label: _gap(one.gaps[label])),
        notes=[
            *filter(None, [note]),
            _HOW,
            _DIFFERENCE + "\n\n" + table(head, rows(changes, lambda one, label: _verdict(one[label]))),
            _MAPS + "\n\n" + table(head, rows(found, lambda one, label: _show(one.agreement[label]))),
            *said,
        ],
        results={
            key: {
                name: {"gaps": one.gaps, "agreement": one.agreement, "difference": changes[key].get(name)}
                for name, one in networks.items()
            }
            for key, networks in found.items()
        },
    )


def _plain_spec(family: Family, setting: Setting) -> dict[str, Any]:
    """Return the audit of a family, with NAME in the place of the network."""
    first = present(family, setting)[0]
    places = {"root": "$UNDERFIRE_DATA", "trained": "WORK/training-mnist-NAME", "name": "NAME"}
    return spec(family, first, setting) | {"model": family.weights.format(**places)}


def differences(family: Family, found: Mapping[str, Measured]) -> dict[str, dict[str, Interval]]:
    """Return the gap of every network minus that of the network without a defence, by training and interpreter."""
    if family.usual is None or family.usual not in found:
        return {}
    usual = found[family.usual].curves
    return {
        name: {label: gap_difference(one.curves[label], usual[label]) for label in family.maps}
        for name, one in found.items()
        if name != family.usual
    }


def _verdict(difference: Interval) -> str:
    """Return a difference with its interval, bold if the interval decides."""
    shown = f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    if difference.high < 0:
        return f"**smaller**, {shown}"
    return f"**larger**, {shown}" if difference.low > 0 else shown


def _gap(gap: Gap) -> str:
    return f"{_show(gap.value)}; PGD alone {gap.plain.value:.3f}; fooled {gap.fooled[-1]:.2f}"


def _show(value: Interval) -> str:
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


_HOW = """The gap is the share of a map that an attacker keeps while the class changes: 0 if the maps change wherever
the prediction changes, 1 if they can be kept whole; `docs/gap.md` defines it. *Fooled* is the share of the images whose
class an attack changed at the largest size; the gap is that of these images alone. Attacks are untargeted PGD, and ADV²
on each map. Brackets are 95 % bootstrap intervals over the images. A network that is hardly fooled has few images, and
a wide interval. `adv2-robust` has Grad-CAM, too."""

_DIFFERENCE = """**The difference from the network without a defence**, on the same images. A training shrinks the gap
of a map if the whole interval is below 0; of twenty intervals, one may miss by chance."""

_MAPS = """**The map while the class stays**: mean Kendall tau of the clean map and that of the attack of Ghorbani et
al. that changes the map alone, at the smallest size. 1: no attack changes the order of the pixels; 0: it is random."""
