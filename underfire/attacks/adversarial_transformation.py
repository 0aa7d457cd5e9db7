"""Adversarial Transformation Networks (Baluja and Fischer, Learning to Attack, AAAI 2018)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from underfire.ascent.objectives import log_odds
from underfire.ascent.step import Targets
from underfire.ascent.threats import Threat, ball
from underfire.ascent.universal import cross_fit_halves
from underfire.catalog import card
from underfire.domains import check_inputs, domain_of
from underfire.errors import InputError
from underfire.files import as_path
from underfire.hooks import frozen
from underfire.learning import Shuffled, fit, read_tensors, write_tensors
from underfire.validate import at_least_one, check_classes, default_generator


@card(
    "attack",
    paper="Baluja and Fischer, Learning to Attack: Adversarial Transformation Networks, AAAI 2018",
    knowledge="white-box",
    norms=("linf",),
    goals=("untargeted", "targeted"),
    random=True,
    atlas="AML.T0043.000",
    universal=True,
    quick={"steps": 1, "width": 4},
)
def adversarial_transformation(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    norm: str = "linf",
    eps: float | Tensor = 16 / 255,
    steps: int = 200,
    step_size: float = 5e-3,
    rerank: float = 20.0,
    fidelity: float = 0.01,
    residual: bool = True,
    width: int = 16,
    chunk: int = 32,
    held_out: bool = True,
    generator_network: nn.Module | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Change each image by one forward pass of a network that was trained to attack this model.

    Each half of the batch is changed by the network that was trained on the other half, so that the attack is judged on
    images that its network has not seen. As in the paper, one network is trained for each goal class. Training costs
    `steps` forward and backward passes of `chunk` images for each goal class and each half. On MNIST with eps = 0.2, a
    network trained for 200 steps on 64 images fools the model for about 85 % of 500 unseen images; random signs of size
    eps fool it for 41 %. A goal class whose region is far from most images needs more images and steps.

    Args:
        goal: None leaves class `y` (ours; the paper has goals only).
        eps: largest change of an entry, one number or one per sample `[B]` (ours; the paper has no bound).
        steps: number of training steps of each network.
        step_size: Adam's step size, in the weights of the network.
        rerank: wanted probability of the goal, as a multiple of the highest probability (the paper's alpha, which is
            1.5 there; a network trained with 1.5 on few images transfers too little). Without a goal: the wanted ratio
            of the probability of all other classes together to that of `y`.
        fidelity: weight of the squared distance to the image, the paper's beta.
        residual: whether the network's output is added to the image (the paper's P-ATN) or replaces the image (its
            AAE).
        width: number of channels of the network's first layer.
        chunk: number of images in each training step.
        held_out: False trains on all images and changes the same images.
        generator_network: a network from images to images, such as one of `train_generator`, which is used for all
            images; no network is trained then.
    """
    domain_of(model).require_images("adversarial_transformation")
    generator = default_generator(generator, x.device)
    check_inputs(model, x, y, goal)
    threat = ball(norm, eps, among=("linf",)).in_domain(domain_of(model))
    threat.check(x)
    at_least_one(steps=steps, width=width, chunk=chunk)
    if generator_network is not None:
        return _transformed(generator_network, x, threat, chunk)
    x_adv = x.clone()
    # train a network for each half and each goal class, and apply it to the images of the other half
    for made, used, wanted in cross_fit_halves(y, goal, held_out, generator):
        if len(made):
            network = train_generator(
                model,
                x[made],
                y[made],
                goal=None if wanted is None else wanted.expand(len(made)),
                eps=threat.take(made).eps,
                steps=steps,
                step_size=step_size,
                rerank=rerank,
                fidelity=fidelity,
                residual=residual,
                width=width,
                chunk=chunk,
                generator=generator,
            )
            x_adv[used] = _transformed(network, x[used], threat.take(used), chunk)
    return x_adv


class TransformationNetwork(nn.Module):
    """A small convolutional encoder and decoder that maps images `[B, C, H, W]` to images.

    Args:
        channels: number of channels of the images.
        width: number of channels of the first layer; the next layers have twice as many, at half the resolution.
        residual: whether the output is added to the image, or replaces it.
        reach: scale of the change that a residual network adds: `reach * (tanh(h) + 0.1 h)` for the last layer's output
            `h`.
        generator: source of the initial weights.
        like: a tensor of the wanted device and dtype.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 16,
        residual: bool = True,
        reach: float = 1.0,
        generator: Generator | None = None,
        like: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {"channels": channels, "width": width, "residual": residual, "reach": reach}
        like = torch.zeros(0) if like is None else like

        def conv(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
            # The usual initialisation would draw from the global generator.
            layer = nn.utils.skip_init(
                nn.Conv2d, inner, outer, 3, stride=stride, padding=1, dtype=like.dtype, device=like.device
            )
            with torch.no_grad():
                layer.weight.normal_(0, (2 / (9 * inner)) ** 0.5, generator=generator)
                layer.bias.zero_()
            return layer

        self.first, self.down = conv(channels, width), conv(width, 2 * width, stride=2)
        self.middle, self.up, self.last = conv(2 * width, 2 * width), conv(2 * width, width), conv(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed images; those of a residual network may leave the ball and the box."""
        h = F.relu(self.first(x - 0.5))
        h = F.relu(self.middle(F.relu(self.down(h))))
        h = F.interpolate(h, size=x.shape[2:], mode="bilinear", align_corners=False)
        h = self.last(F.relu(self.up(h)))
        return x + self.facts["reach"] * (h.tanh() + 0.1 * h) if self.facts["residual"] else h.sigmoid()

    def save(self, path: str | Path) -> None:
        """Write the weights and the constructor's arguments to a safetensors file."""
        facts = {"attack": "adversarial_transformation", **{name: repr(value) for name, value in self.facts.items()}}
        write_tensors(as_path(path), self.state_dict(), facts)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the network in a file that `save` wrote.

        Raises:
            InputError: there is no such file, or it is damaged or of another kind.
        """
        weights, facts = read_tensors(as_path(path))
        try:
            network = cls(
                int(facts["channels"]),
                width=int(facts["width"]),
                residual=facts["residual"] == "True",
                reach=float(facts["reach"]),
                like=weights["first.weight"],
            )
            network.load_state_dict(weights)
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{str(path)!r} holds no network that train_generator made: {reason}") from None
        return network


def train_generator(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    goal: Tensor | None = None,
    eps: float | Tensor = 16 / 255,
    steps: int = 200,
    step_size: float = 5e-3,
    rerank: float = 20.0,
    fidelity: float = 0.01,
    residual: bool = True,
    width: int = 16,
    chunk: int = 32,
    generator: Generator | None = None,
) -> TransformationNetwork:
    """Train a network that changes images so that the model predicts the goal and ranks the other classes as before.

    The loss is `fidelity * |g(x) - x|² + H(r(f(x), goal), f(g(x)))`, where `g` is the network, `f` the model's
    probabilities, `H` the cross-entropy and `r` is `reranked`. The paper has the squared distance in place of `H`. Both
    have the same minimum, but only the cross-entropy keeps a gradient where the model is confident of another class.
    Without a goal, `H` is replaced by the log-odds of `y`, clipped from below at `-log(rerank)`. If the top class leads
    the second by more than 10 logits on average, all logits are divided by the factor that brings this average to 10.
    An image that leaves the ball is projected onto it, and the gradient ignores the projection.

    The arguments are those of `adversarial_transformation`. The result returns images that may leave the ball, so that
    its caller projects them.
    """
    generator = default_generator(generator, x.device)
    check_inputs(model, x, y, goal)
    threat = ball("linf", eps).in_domain(domain_of(model))
    threat.check(x)
    at_least_one(steps=steps, width=width, chunk=chunk)
    if not (rerank > 1 and fidelity >= 0 and step_size > 0):
        raise InputError(
            "rerank must be above 1, fidelity at least 0 and step_size above 0, "
            f"got {rerank:g}, {fidelity:g} and {step_size:g}"
        )
    reach = float(torch.as_tensor(eps).max())
    network = TransformationNetwork(
        x.shape[1], width=width, residual=residual, reach=reach, generator=generator, like=x
    )
    label_odds = log_odds()
    with frozen(model):
        with torch.no_grad():
            logits = torch.cat([model(part) for part in x.split(chunk)]).to(x.dtype)
        check_classes(logits, y, goal)
        # divide the logits of a confident model by a temperature: the mean lead is then 10 logits at most
        leads = logits.topk(2, dim=1).values
        temperature = ((leads[:, 0] - leads[:, 1]).mean() / 10).clamp_min(1)
        target = None if goal is None else reranked((logits / temperature).softmax(1), goal, rerank)

        def loss(rows: Tensor, _: Generator) -> Tensor:
            # forward pass through network, projection and model
            z = network(x[rows])
            inside = z + (threat.take(rows).project(x[rows], z) - z).detach()
            logits = model(inside).to(x.dtype) / temperature
            # distance to the image, plus distance to the wanted output
            distance = (z - x[rows]).square().flatten(1).sum(1).mean()
            if target is not None:
                return fidelity * distance + F.cross_entropy(logits, target[rows])
            odds = label_odds(Targets(y[rows], None, rows).step(model, inside, logits))
            return fidelity * distance - odds.clamp_max(math.log(rerank)).mean()

        batches = Shuffled(torch.arange(len(x), device=x.device), chunk)
        adam = torch.optim.Adam(network.parameters(), step_size)
        fit(network, adam, batches, loss, steps=steps, generator=generator)
    return network.requires_grad_(False)


def reranked(probabilities: Tensor, goal: Tensor, rerank: float) -> Tensor:
    """Return the paper's `r_alpha`, `[N, K]`: the goal's probability becomes `rerank` times the highest, normalised."""
    first = rerank * probabilities.amax(1, keepdim=True)
    raised = probabilities.scatter(1, goal[:, None], first)
    return raised / raised.sum(1, keepdim=True)


@torch.no_grad()
def _transformed(network: nn.Module, x: Tensor, threat: Threat, chunk: int) -> Tensor:
    """Return the output of the network for each image, projected onto the ball and the box."""
    with frozen(network):
        z = torch.cat([network(part) for part in x.split(chunk)]) if len(x) else x
    if z.shape != x.shape:
        raise InputError(f"generator_network must return images {list(x.shape)}, got {tuple(z.shape)}")
    return threat.project(x, z)
