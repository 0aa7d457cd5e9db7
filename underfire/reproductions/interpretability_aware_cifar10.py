"""Attack the CIFAR-10 networks of Boopathy et al. 2020 by PGD-200 at seven radii, and compare with their table."""

from __future__ import annotations

from functools import partial

from underfire.reproductions.interpretability_aware_networks import Part, Row, Table, compare
from underfire.reproductions.registry import Experiment, Outcome, Setting

TABLE = Table(
    name="interpretability-aware-cifar10",
    title="Interpretability-aware training on CIFAR-10: accuracy under PGD-200",
    family="cifar10_wresnet",
    data="parquet:{root}/cifar10-test.parquet",
    test_set="CIFAR-10 test set",
    radii={"0": 0.0} | {f"{grey}/255": grey / 255 for grey in (2, 4, 6, 8, 9, 10)},
    rows={
        "normal": Row("Normal", (0.765, 0.250, 0.070, 0.060, 0.060, 0.060, 0.060)),
        "adv": Row("Adv", (0.720, 0.605, 0.485, 0.330, 0.170, 0.145, 0.085)),
        "trades": Row("TRADES", (0.765, 0.610, 0.460, 0.295, 0.170, 0.140, 0.100)),
        "intone": Row("Int-one-class", (0.685, 0.505, 0.360, 0.190, 0.065, 0.040, 0.025)),
        "int": Row("Int", (0.735, 0.630, 0.485, 0.365, 0.270, 0.240, 0.210)),
        "intadv": Row("Int-Adv", (0.665, 0.585, 0.510, 0.385, 0.320, 0.300, 0.280)),
        "int2": Row("Int2", (0.690, 0.595, 0.465, 0.360, 0.290, 0.245, 0.220)),
        "int2adv": Row("Int2-Adv", (0.680, 0.585, 0.485, 0.405, 0.335, 0.310, 0.285)),
    },
    quick=Part(("normal", "int2adv"), 10, 20),
)


def run(setting: Setting) -> Outcome:
    """Attack all eight networks at all seven radii."""
    return compare(TABLE, setting)


PARTS = {
    name: Experiment(
        f"{row.label} on CIFAR-10 under PGD-200 at seven radii (a part of interpretability-aware-cifar10).",
        partial(compare, TABLE, names=(name,)),
    )
    for name, row in TABLE.rows.items()
}
