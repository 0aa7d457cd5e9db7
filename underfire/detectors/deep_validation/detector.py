"""Deep Validation (Wu, Xu, Zhong, Lyu and King, DSN 2019): layers whose features leave their usual range."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from underfire.catalog import card
from underfire.detectors.deep_validation.machines import Gamma, Machines, fit_machines, precise
from underfire.detectors.detector import Detector
from underfire.detectors.evaluated import Evaluated, evaluate
from underfire.errors import DataError, InputError, shown
from underfire.hooks import Probe, check_pooling, choose_probes, frozen
from underfire.model import Classifier
from underfire.validate import at_least, check_choice

_FIELDS = tuple(field.name for field in dataclasses.fields(Machines))
_HELD_OUT = 5  # in mode "calibrated", every fifth image of a class is held out


@card(
    "detector",
    name="deep_validation",
    paper="Wu, Xu, Zhong, Lyu and King, Deep Validation: Toward Detecting Real-World Corner Cases for Deep Neural "
    "Networks, DSN 2019",
    differentiable=True,
)
class DeepValidation(Detector):
    """Score an image by how far the features of its layers lie outside of the usual range of its predicted class.

    A single validator is one layer with a one-class SVM for each class, fitted to the features of clean images that
    the model classifies correctly as that class. Its score is the discrepancy, the negative decision function of the
    machine of the predicted class. The joint validator, the score of this detector, is the sum over the layers.

    The paper states neither features, kernel nor ν. Those here are ours: an average of each feature map, in standard
    deviations over the fitted images, and a radial kernel.

    Args:
        layers: the layers, as names, patterns or `"auto"` (see `hooks.choose_layers`); one layer is a single validator.
        pooling: how feature maps become features: `"mean"`, `"max"`, `"mean_4"` for 4 x 4 averages, or `"none"`.
        standardise: whether each feature is divided by its standard deviation, after its mean is subtracted.
        nu: ν of the machines: the largest share of the fitted images outside of the boundary.
        gamma: γ of the kernel: a number, `"scale"` for `1 / (D v)` with the variance `v` of a class, or `"auto"` for
            `1 / D`.
        per_class: the largest number of images of a class that are used, the first ones.
        mode: `"paper"` sums the decision functions as they are. `"calibrated"` holds out every fifth image of a class,
            divides each decision function by the sum of its dual coefficients, so that the size of a class does not
            count, and standardises it by mean and standard deviation of its layer on the held-out images.

    Raises:
        InputError: an option is out of its range.
    """

    labelled: ClassVar[bool] = True
    least_per_class: ClassVar[int] = 2

    def __init__(
        self,
        *,
        layers: str | tuple[str, ...] = "auto",
        pooling: str = "mean",
        standardise: bool = True,
        nu: float = 0.1,
        gamma: Gamma = "scale",
        per_class: int = 1000,
        mode: Literal["paper", "calibrated"] = "paper",
    ) -> None:
        check_choice(("paper", "calibrated"), mode=mode)
        check_pooling(pooling)
        at_least(2, per_class=per_class)
        if not 0 < nu <= 1:
            raise InputError(f"nu must be in (0, 1], such as 0.1, got {shown(nu)}")
        if gamma not in ("scale", "auto") and (isinstance(gamma, str) or not gamma > 0):
            raise InputError(f"gamma must be 'scale', 'auto' or a number above 0, got {shown(gamma)}")
        self.layers, self.pooling, self.standardise, self.nu = layers, pooling, standardise, nu
        self.gamma, self.per_class, self.mode = gamma, per_class, mode
        # learned tensors and their machines, for a device and a dtype
        self._ready: tuple[Any, Any, dict[str, Tensor], list[Machines]] | None = None

    @property
    def most_per_class(self) -> int | None:
        """Return how many images of each class it learns from."""
        return self.per_class

    def layer_scores(self, model: Classifier, x: Tensor) -> Tensor:
        """Return the scores of the single validators, `[B, L]`, in the order of `about.probes`; their sum is `score`.

        Raises:
            NotFitted, DataError, ModelError: as `score`.
        """
        self.check_usable(model, x)
        with frozen(model):
            return self._layer_scores(evaluate(model, x, self.fitted().probes), self._learned_like(x))

    def _probes(self, model: Classifier, x: Tensor) -> tuple[Probe, ...]:
        return choose_probes(model, x, self.layers, self.pooling)

    def _learn(self, model: Classifier, clean: Evaluated, attacked: Evaluated | None) -> dict[str, Tensor]:
        assert clean.y is not None
        learned: dict[str, Tensor] = {}
        classes, fitted = clean.logits.shape[1], ~self._held_out(clean.y)
        for number, values in enumerate(clean.features.values()):
            own = values[fitted]
            learned |= {f"{number}.mean": own.mean(0), f"{number}.std": own.std(0)} if self.standardise else {}
            z = _standardised(own, learned, number)
            machines = fit_machines(z, clean.y[fitted], classes, self.nu, self.gamma)
            learned |= {f"{number}.{key}": value for key, value in vars(machines).items()}
        if self.mode == "calibrated":
            rest = ~fitted
            if int(rest.sum()) < 2:
                raise DataError(f"{self.name} in mode 'calibrated' needs five images of two or more classes")
            held = {probe: values[rest] for probe, values in clean.features.items()}
            scores = self._discrepancies(dataclasses.replace(clean, logits=clean.logits[rest], features=held), learned)
            learned |= {"usual_mean": scores.mean(0), "usual_std": scores.std(0)}
        return learned

    def _held_out(self, y: Tensor) -> Tensor:
        """Return which images are held out: in mode `"calibrated"`, every fifth of each class."""
        if self.mode == "paper":
            return torch.zeros_like(y, dtype=torch.bool)
        one_hot = torch.nn.functional.one_hot(y)
        return one_hot.cumsum(0).gather(1, y[:, None]).flatten() % _HELD_OUT == 0

    def _score(self, model: Classifier, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        return self._layer_scores(inputs, learned).sum(1)

    def _learned_like(self, x: Tensor) -> dict[str, Tensor]:
        """Return the learned tensors on the device of `x`; those of the machines are converted to float64 only once."""
        ready = self._ready
        if ready is None or ready[0] is not self.learned or ready[1] != (x.device, x.dtype):
            with torch.inference_mode(False):  # a later pass may need gradients
                found = super()._learned_like(x)
                found |= {name: precise(value) for name, value in found.items() if name.rpartition(".")[2] in _FIELDS}
                machines = _machines(found)
                _ = [one.squares for one in machines]  # computed once, and outside of inference mode
            ready = self._ready = self.learned, (x.device, x.dtype), found, machines
        return ready[2]

    def _layer_scores(self, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        scores = self._discrepancies(inputs, learned)
        return (scores - learned["usual_mean"]) / learned["usual_std"] if self.mode == "calibrated" else scores

    def _discrepancies(self, inputs: Evaluated, learned: dict[str, Tensor]) -> Tensor:
        """Return the negative decision functions of the machines of the predicted classes, `[B, L]`."""
        probes = self.about.probes if self.about else tuple(inputs.features)
        columns, classes = [], inputs.predicted
        ready = self._ready
        every = ready[3] if ready is not None and ready[2] is learned else _machines(learned)
        for number, (probe, machines) in enumerate(zip(probes, every, strict=True)):
            decided = machines.decide(_standardised(inputs.features[probe], learned, number), classes)
            scale = machines.weights.sum(1)[classes].to(decided) if self.mode == "calibrated" else 1.0
            columns.append(-decided / scale)
        return torch.stack(columns, 1)


def _machines(learned: dict[str, Tensor]) -> list[Machines]:
    """Return the machines of every layer."""
    layers = sum(name.endswith(".offset") for name in learned)
    return [Machines(**{name: learned[f"{n}.{name}"] for name in _FIELDS}) for n in range(layers)]


def _standardised(values: Tensor, learned: dict[str, Tensor], number: int) -> Tensor:
    """Return the features of a layer in standard deviations; a feature that never varied keeps its scale."""
    if f"{number}.mean" not in learned:
        return values
    std = learned[f"{number}.std"]
    return (values - learned[f"{number}.mean"]) / torch.where(std > 0, std, torch.ones_like(std))
