"""Train an MNIST network by defensive distillation, and break it by Carlini and Wagner's attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underfire import models, training
from underfire.ascent.objectives import cross_entropy, log_odds
from underfire.attacks import carlini_wagner, fgsm, jsma, pgd
from underfire.hooks import frozen
from underfire.measures.perturbation import l2
from underfire.measures.statistics import bootstrap_mean, rate
from underfire.model import Classifier
from underfire.models.architectures.small import trades_small
from underfire.records import Batch
from underfire.reproductions.adv2.table import show
from underfire.reproductions.detection.stored import Store
from underfire.reproductions.hardening.attacked import Attack, Hits, Trial, accuracy, clean, right
from underfire.reproductions.hardening.digits import EPS, PLAN, TEST, four_convolutions
from underfire.reproductions.hardening.networks import Workshop, first_images
from underfire.reproductions.registry import Outcome, Setting
from underfire.reproductions.transfer.claims import Decision, above, as_results, as_table

TEMPERATURE = 100.0
CW, ALONG, TRANSFERRED = "C&W, L2", "FGSM, log-odds", "FGSM, log-odds, made on the undefended network"


@dataclass(frozen=True)
class Sizes:
    """The size of a run.

    Attributes:
        train: the number of training images.
        usual, distilled: epochs of the usual training, and of the teacher and of the student each.
        images: the number of test images under FGSM and PGD.
        few: the number under JSMA and Carlini and Wagner's attack.
        steps, searches: steps and values of c of that attack.
        share: share of the pixels that JSMA may change.
    """

    train: int
    usual: float
    distilled: float
    images: int
    few: int
    steps: int = 400
    searches: int = 5
    share: float = 0.145


SIZES = {
    "quick": Sizes(256, 2, 2, 20, 4, 20, 2, 0.01),
    "default": Sizes(60_000, 2, 1.5, 500, 100),
    "full": Sizes(60_000, 50, 50, 10_000, 1000, 10_000, 9),
}

_HOW = """Both networks have the architecture of Carlini and Wagner (32-32-64-64-200-200, dropout 0.5). *Undefended* is
trained for {usual:g} epochs on {train} images. *Distilled* is trained at T = {t:g}, teacher and student for
{distilled:g} epochs each, and used at T = 1; both begin with the weights of the undefended network, as the code of
Carlini and Wagner begins with a network that was trained without T. Their schedule is 50 epochs. FGSM and PGD (40
steps) have the size {eps:g} in L∞ and attack the first {images} test images; JSMA may change {share:.1%} of the
pixels, towards the next class; C&W tries {searches} values of c with {steps} steps each. The last two attack the first
{few} images. Accuracy in per cent, with its 95 % Clopper-Pearson interval."""

_WHY = """At T = 1 the softmax of a distilled network sees T times the logits that it saw in training. Where the
cross-entropy of a right prediction is then 0 in 32 bits, its gradient is 0 too, and an attack that follows it, or the
derivatives of probabilities, stands still. That does not move the decision boundary. The log-odds have a gradient of
the same signs that does not vanish; the derivatives of logits and the margin of Carlini and Wagner do not vanish
either."""

_PUBLISHED = """Papernot et al. report that distillation lowers the success of JSMA from 95 % to less than 0.5 %.
Carlini and Wagner report that their attacks succeed on distilled and undistilled networks with 100 % probability."""


def run(setting: Setting) -> Outcome:
    """Train both networks where they are missing, and attack them."""
    sizes = SIZES[setting.scale]
    named = networks(setting, sizes)
    batch = first_images(setting, TEST, sizes.images)
    facts = asdict(sizes) | {name: models.fingerprint(model) for name, model in named.items()}
    trial = Trial(batch, Store.of(setting, "distillation-broken", facts), setting.progress, part=50)
    found: dict[str, dict[str, Hits]] = {}
    for attack, function in attacks(sizes).items():
        few = sizes.few if attack.startswith("JSMA") else None
        found[attack] = {
            name: trial.correct(f"{attack}, {name}", function, model, n=few) for name, model in named.items()
        }
    # the step that fools the undefended network, on the distilled one
    usual, distilled = named.values()
    found[TRANSFERRED] = {
        "undefended": found[ALONG]["undefended"],
        "distilled": trial.correct(TRANSFERRED, partial(fgsm, eps=EPS), usual, victim=distilled),
    }
    # Carlini and Wagner's attack, with the length of its perturbations
    nearest = partial(carlini_wagner, steps=sizes.steps, binary_search_steps=sizes.searches, c=0.1)
    lengths: dict[str, Hits] = {}
    found[CW] = {}
    for name, model in named.items():
        made = trial.images(f"{CW}, {name}", nearest, model, n=sizes.few)
        found[CW][name] = right(model, made)
        lengths[name] = l2(batch.x[: sizes.few], made.x).double().cpu().numpy()
    return outcome(setting, sizes, found, lengths, {name: vanished(model, batch) for name, model in named.items()})


def vanished(model: Classifier, batch: Batch) -> Hits:
    """Return 1 for each image at which the gradient of the cross-entropy is exactly 0, and 0 for the others, `[n]`."""
    found = []
    with frozen(model):
        for x, y in zip(batch.x.split(100), batch.y.split(100), strict=True):
            x = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
            found.append((gradient == 0).flatten(1).all(1))
    return torch.cat(found).double().cpu().numpy()


def networks(setting: Setting, sizes: Sizes) -> dict[str, Classifier]:
    """Return the undefended and the distilled network."""
    workshop = Workshop.of(setting, "mnist:{root}/mnist?split=train", sizes.train)
    usual = four_convolutions(workshop, sizes.usual)
    distilled = workshop.network(
        "mnist-cnn-distillation",
        partial(trades_small, 0.5),
        training.distillation,
        replace(PLAN, epochs=sizes.distilled),
        start=usual,
        temperature=TEMPERATURE,
    )
    return {"undefended": usual, "distilled": distilled}


def attacks(sizes: Sizes) -> dict[str, Attack]:
    """Return the attacks that a network's own gradient makes, by name; each comes masked and not masked."""
    steps: dict[str, Any] = {"eps": EPS, "steps": 40, "step_size": 0.01, "keep": "last"}

    def saliency(on: Callable[[nn.Module], nn.Module], model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return jsma(on(model), x, y, goal=(y + 1) % 10, share=sizes.share)

    return {
        "clean": clean,
        "FGSM, cross-entropy": partial(fgsm, eps=EPS, objective=cross_entropy()),
        ALONG: partial(fgsm, eps=EPS, objective=log_odds()),
        "PGD, cross-entropy": partial(pgd, **steps, objective=cross_entropy()),
        "PGD, log-odds": partial(pgd, **steps, objective=log_odds()),
        "JSMA, probabilities": partial(saliency, probabilities),
        "JSMA, logits": partial(saliency, lambda model: model),
    }


def probabilities(model: nn.Module) -> Classifier:
    """Return a network whose outputs are the probabilities of another, as if they were logits."""
    return Classifier(nn.Sequential(model, nn.Softmax(1)), output="logits").eval()


def outcome(
    setting: Setting,
    sizes: Sizes,
    found: Mapping[str, Mapping[str, Hits]],
    lengths: Mapping[str, Hits],
    still: Mapping[str, Hits],
) -> Outcome:
    """Return the outcome.

    Args:
        setting: the setting of the experiment.
        sizes: the size of the run.
        found: which images are correct, by attack and network.
        lengths: the L2 norms of the changes of Carlini and Wagner's attack, by network.
        still: which images have no gradient of the cross-entropy, by network.
    """
    changed = {name: lengths[name][found[CW][name] == 0] for name in lengths}
    means = {name: bootstrap_mean(values) for name, values in changed.items()}
    claims = decided(found)
    near = ", ".join(f"{name} {show(mean)}" for name, mean in means.items())
    return Outcome(
        title="Defensive distillation on MNIST, broken by Carlini and Wagner's attack",
        source="Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, IEEE S&P 2017; Papernot et "
        "al., Distillation as a Defense to Adversarial Perturbations against Deep Neural Networks, IEEE S&P 2016",
        spec={
            "data": "MNIST, the first images of each part",
            **asdict(sizes),
            "eps": EPS,
            "temperature": TEMPERATURE,
            "plan": repr(PLAN),
            "seed": setting.seed,
        },
        columns=("attack", "n", "accuracy, undefended", "accuracy, distilled"),
        rows=[
            [attack, str(len(of["distilled"])), accuracy(of["undefended"]), accuracy(of["distilled"])]
            for attack, of in found.items()
        ],
        notes=[
            _HOW.format(**asdict(sizes), t=TEMPERATURE, eps=EPS),
            f"Mean L2 norm of C&W's successful changes, with its 95 % bootstrap interval: {near}.",
            "The gradient of the cross-entropy is exactly 0 at "
            + " and ".join(f"{accuracy(hits)} % of the images ({name})" for name, hits in still.items())
            + ".",
            as_table(claims),
            _WHY,
            _PUBLISHED,
        ],
        results={
            "accuracy": {attack: {name: rate(hits) for name, hits in of.items()} for attack, of in found.items()},
            "l2": means,
            "gradient 0": {name: rate(hits) for name, hits in still.items()},
            "claims": as_results(claims),
        },
    )


def decided(found: Mapping[str, Mapping[str, Hits]]) -> list[Decision]:
    """Return what masks the gradient of the distilled network, and what breaks it."""
    fooled = {attack: {name: 1 - hits for name, hits in of.items()} for attack, of in found.items()}
    own = {attack: of["distilled"] for attack, of in fooled.items()}
    broken = rate(own[CW])
    claims = [
        above(f"{attack}: fools the undefended network more often", fooled[attack]["undefended"], own[attack])
        for attack in ("FGSM, cross-entropy", "PGD, cross-entropy", "JSMA, probabilities")
    ]
    for attack, plain, masked in (
        ("FGSM", "log-odds", "cross-entropy"),
        ("PGD", "log-odds", "cross-entropy"),
        ("JSMA", "logits", "probabilities"),
    ):
        more = f"{attack} on the distilled network: {plain} find more than {masked}"
        claims.append(above(more, own[f"{attack}, {plain}"], own[f"{attack}, {masked}"]))
    figures = f"{100 * broken.value:.1f} % [{100 * broken.low:.1f}, {100 * broken.high:.1f}], n = {broken.n}"
    return [*claims, Decision("C&W changes every image of the distilled network", broken.value == 1, figures, True)]
