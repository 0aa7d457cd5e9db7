"""Look for a normalisation that was left out: the model would be far more accurate with a common one."""

from __future__ import annotations

from underfire.audit.target import Target
from underfire.errors import ModelError
from underfire.model import Classifier

#: Common normalisations by the number of channels: name, mean and standard deviation of images in [0, 1].
COMMON: dict[int, dict[str, tuple[list[float], list[float]]]] = {
    1: {"that of MNIST": ([0.1307], [0.3081]), "the range [-1, 1]": ([0.5], [0.5]), "0 to 255": ([0.0], [1 / 255])},
    3: {
        "that of ImageNet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "that of CIFAR-10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "the range [-1, 1]": ([0.5] * 3, [0.5] * 3),
        "0 to 255": ([0.0] * 3, [1 / 255] * 3),
    },
}
#: How many images are tried, and by which share of them a normalisation must be better.
IMAGES, GAIN = 128, 0.2


def check_normalisation(target: Target) -> None:
    """Raise ModelError if no normalisation is set, and the model gets far more images right with a common one.

    A `mean` that the spec sets, also to 0, is never questioned.
    """
    model, given = target.model, target.spec.model
    batch = target.data[target.spread(IMAGES)].to(target.spec.device)
    unset = bool((model.mean == 0).all() and (model.std == 1).all())
    if not unset or given.mean is not None or given.std is not None or batch.x.dim() != 4 or len(batch) < 10:
        return

    def right(mean: list[float], std: list[float]) -> int:
        tried = Classifier(model.module, mean=mean, std=std, output=model.output).to(batch.x.device)
        logits = tried.predict(batch.x, chunk=target.spec.batch_size, finite=False)
        return int((logits.argmax(1) == batch.y).sum())

    now = right([0.0], [1.0])
    if now >= (1 - GAIN) * len(batch):
        return
    found = {name: right(mean, std) for name, (mean, std) in COMMON.get(batch.x.shape[1], {}).items()}
    best = max(found, key=lambda name: found[name], default="")
    # the gain must be large, and more than chance explains
    if best and found[best] - now >= max(GAIN * len(batch), 3 * (now + 1) ** 0.5):
        mean, std = COMMON[batch.x.shape[1]][best]
        values = ", ".join(f"{name}: {[round(v, 4) for v in value]}" for name, value in (("mean", mean), ("std", std)))
        raise ModelError(
            f"the model gets {now} of {len(batch)} images right without a normalisation, but {found[best]} with {best}"
            f"; set it under `model` ({values}), or mean: 0 for none"
        )
