"""Run the audit of a system, and read from its ledger how far ADV² and PGD move the maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from underfire.audit.ledger import Ledger
from underfire.measures.statistics import bootstrap_mean, paired_difference, rate
from underfire.records import Interval
from underfire.reproductions.adv2.system import System
from underfire.reproductions.audits import run_audit as run_audit
from underfire.reproductions.registry import Setting

MEASURES = ("map_l1", "map_l2", "map_iou")


def audited(system: System, setting: Setting) -> Ledger:
    """Return the ledger of the audit of a system; what an earlier run has computed is not computed again."""
    name = "-".join([system.network, system.framework.name])
    return run_audit(system.spec(setting), name, setting)


def outcome(ledger: Ledger, attack: str) -> dict[str, Interval]:
    """Return the success rate of an attack, and the mean confidence of its successes in the goal.

    Only images that the network classifies correctly count, here and in all other functions.
    """
    rows = ledger.sql(f"SELECT success, conf_adv FROM rows WHERE label = '{attack}' AND pred_clean = y ORDER BY id")
    return {
        "success": rate([row["success"] for row in rows]),
        "confidence": bootstrap_mean([row["conf_adv"] for row in rows if row["success"]]),
    }


def values(ledger: Ledger, attack: str, interpreter: str, successes: bool = False) -> dict[str, dict[str, float]]:
    """Return every measure of the maps of an interpreter after an attack, by image.

    Args:
        successes: count only the images on which the attack succeeded.
    """
    only = "AND success" if successes else ""
    rows = ledger.sql(
        f"SELECT maps.id, {', '.join(MEASURES)} "
        f"FROM maps JOIN (SELECT DISTINCT id, y, pred_clean FROM rows) USING (id) "
        f"WHERE label = '{attack}' AND interpreter = '{interpreter}' AND pred_clean = y {only} ORDER BY maps.id"
    )
    return {measure: {row["id"]: row[measure] for row in rows} for measure in MEASURES}


def shift(ledger: Ledger, attacks: Sequence[str], interpreter: str) -> dict[str, Any]:
    """Return the mean of every measure after two attacks, and the paired difference of the second and the first."""
    first, second = (values(ledger, attack, interpreter) for attack in attacks)
    found: dict[str, Any] = {}
    for measure in MEASURES:
        before, after = list(first[measure].values()), list(second[measure].values())
        found[measure] = {
            **{name: bootstrap_mean(row) for name, row in zip(attacks, (before, after), strict=True)},
            "difference": paired_difference(after, before),
        }
    return found


def ratio(shift: dict[str, Any], measure: str, attacks: Sequence[str]) -> float:
    """Return the mean of a measure after the second attack over that after the first."""
    first, second = (shift[measure][attack].value for attack in attacks)
    return float(second / first) if first else float("nan")
