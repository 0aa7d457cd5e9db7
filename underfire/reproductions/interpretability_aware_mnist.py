"""Attack the twelve MNIST networks of Boopathy et al. 2020 by PGD-200 at seven radii, and compare with their table."""

from __future__ import annotations

from underfire.reproductions.interpretability_aware_networks import Part, Row, Table, compare
from underfire.reproductions.registry import Outcome, Setting

TABLE = Table(
    name="interpretability-aware-mnist",
    title="Interpretability-aware training on MNIST: accuracy under PGD-200",
    family="mnist_small",
    data="mnist:{root}/mnist?split=test",
    test_set="MNIST test set",
    radii={f"{eps:g}": eps for eps in (0.0, 0.05, 0.1, 0.2, 0.3, 0.35, 0.4)},
    rows={
        "normal": Row("Normal", (1.000, 0.530, 0.045, 0.000, 0.000, 0.000, 0.000)),
        "adv": Row("Adv", (0.980, 0.960, 0.940, 0.925, 0.890, 0.010, 0.000)),
        "trades": Row("TRADES", (0.970, 0.970, 0.955, 0.930, 0.885, 0.000, 0.000)),
        "ig": Row("IG-Norm", (0.985, 0.950, 0.895, 0.410, 0.005, 0.000, 0.000)),
        "igsum": Row("IG-Norm-Sum", (0.975, 0.955, 0.935, 0.910, 0.880, 0.115, 0.000)),
        "intone": Row("Int-one-class", (0.975, 0.635, 0.330, 0.140, 0.125, 0.115, 0.080)),
        "int": Row("Int", (0.950, 0.930, 0.905, 0.840, 0.790, 0.180, 0.140)),
        "intadv": Row("Int-Adv", (0.935, 0.945, 0.905, 0.880, 0.855, 0.355, 0.175)),
        "int2": Row("Int2", (0.950, 0.945, 0.935, 0.890, 0.845, 0.555, 0.385)),
        "int2adv": Row("Int2-Adv", (0.955, 0.925, 0.915, 0.880, 0.840, 0.655, 0.620)),
        "intig": Row("Int-IG", None),
        "intigadv": Row("Int-IG-Adv", None),
    },
    quick=Part(("normal", "adv"), 200, 200),
)


def run(setting: Setting) -> Outcome:
    """Attack all twelve networks at all seven radii."""
    return compare(TABLE, setting)
