"""Detect corner cases of MNIST by Deep Validation, feature squeezing and kernel density (Wu et al. 2019)."""

from __future__ import annotations

from underfire.reproductions.detection.mnist_network import network
from underfire.reproductions.detection.page import Published, as_note, outcome
from underfire.reproductions.detection.study import Sizes, Study, measure
from underfire.reproductions.registry import Outcome, Setting

STUDY = Study(
    network=network,
    train="mnist:{root}/mnist?split=train",
    test="mnist:{root}/mnist?split=test",
    transformations=(
        *("rotation", "shear", "scale", "translation", "brightness", "contrast", "complement"),
        "scale_0.6+rotation_50",
    ),
    layers="auto",
    pooling="mean_4",
    named="mnist",
    sizes={
        "quick": Sizes(fit=300, searched=60, changed=60, clean=60, strengths=4),
        "default": Sizes(fit=12_000, searched=500, changed=1000, clean=2000, strengths=20),
        "full": Sizes(fit=60_000, searched=1000, changed=4000, clean=5000, strengths=20),
    },
)
_COLUMNS = ("paper, SCC", "rotation", "shear", "scale", "translation", "complement", "combined", "overall")
_LAYERS = (
    ("layer 1", "0.8760", "0.9987", "0.8827", "0.8952", "1.0000", "1.0000", "0.9440"),
    ("layer 2", "0.9200", "0.9719", "0.8048", "0.8893", "1.0000", "0.9996", "0.9324"),
    ("layer 3", "0.9741", "0.9797", "0.9591", "0.9728", "0.9850", "0.9197", "0.9618"),
    ("layer 4", "0.9740", "0.9823", "0.9224", "0.9657", "0.9876", "0.9670", "0.9657"),
    ("layer 5", "0.9732", "0.9788", "0.9053", "0.9602", "0.9861", "0.9630", "0.9601"),
    ("layer 6", "0.9659", "0.9889", "0.9237", "0.9620", "0.9871", "0.9786", "0.9676"),
    ("joint", "0.9891", "0.9991", "0.9881", "0.9844", "1.0000", "1.0000", "0.9937"),
)
PUBLISHED = Published(
    joint=0.9937,
    squeezing=0.9784,
    density=0.1436,
    least=0.985,
    network="seven-layer CNN",
    notes=(as_note("The published table by layer and transformation", _COLUMNS, _LAYERS),),
)


def run(setting: Setting) -> Outcome:
    """Train the network if it is missing, fit the detectors, and compare them on corner cases."""
    title = "Deep Validation on corner cases of MNIST"
    return outcome(STUDY, setting, measure(STUDY, setting), PUBLISHED, title)
