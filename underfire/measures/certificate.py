"""Certificates: lower bounds of the margin over every perturbation of a given size, for small ReLU networks.

Source: Wong and Kolter, Provable Defenses against Adversarial Examples via the Convex Outer Adversarial Polytope, ICML
2018; the same bounds are Fast-Lin of Weng et al., Towards Fast Computation of Certified Robustness for ReLU Networks,
ICML 2018. Each unstable ReLU is enclosed by two parallel lines, and the resulting linear programme has a dual solution
in closed form, a backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from underfire.domains import domain_of
from underfire.errors import Unsupported
from underfire.hooks import frozen, unwrap
from underfire.model import Classifier, as_classifier
from underfire.validate import at_least, at_least_one, check_choice, check_classes, check_labels

_AFFINE = (
    *(nn.Conv1d, nn.Conv2d, nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, nn.BatchNorm1d, nn.BatchNorm2d),
    *(nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.ConstantPad2d),
)


def margin_bound(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, norm: str = "linf", chunk: int = 1) -> Tensor:
    """Return a lower bound of the margin over all perturbations of size `eps` that stay in the box, `[B]`.

    The margin is the logit of `y` less the largest other one. Where the bound is positive, no perturbation within `eps`
    changes the class `y`; where it is not, nothing is known. The bounds of every layer need one backward pass for each
    of its units, so that the network should be small.

    Args:
        model: a classifier around a sequence of convolutions, linear layers, average pooling, batch norms, and ReLUs.
        x: images `[B, C, H, W]`, or inputs of another domain.
        y: classes, int64 `[B]`.
        eps: size of the perturbation, in units of the image.
        norm: `"linf"`, or `"l2"`, whose bound does not use the box.
        chunk: number of images that are bounded at once; each takes the memory of its largest layer squared.

    Raises:
        Unsupported: the network has another layer, or the norm is unknown. DataError: inputs or labels are wrong.
        InputError: eps is negative.
    """
    check_choice(("linf", "l2"), norm=norm)
    at_least(0, eps=eps)
    at_least_one(chunk=chunk)
    model = as_classifier(model)
    domain_of(model).check(x)
    check_labels(x, y)
    parts = _between_rectifiers(model)
    if len(x) == 0:
        return x.new_zeros(0)
    with frozen(model), torch.no_grad():
        check_classes(model(x[:1]), y)
        x, given = x.to(next((p.dtype for p in model.parameters()), x.dtype)), x.dtype  # layers take one dtype
        blocks, z = list[_Block](), x[:1]
        for layers in parts:
            blocks.append(_Block(layers, z.shape[1:], z))
            z = blocks[-1](z)
        low, high = domain_of(model).box(x)
        found = []
        for image, classes in zip(x.split(chunk), y.split(chunk), strict=True):
            ball = _Ball(image, torch.maximum(image - eps, low), torch.minimum(image + eps, high), eps, norm)
            found.append(_bound(blocks, ball, classes))
    return torch.cat(found).to(given)


@dataclass(frozen=True)
class _Ball:
    """The perturbed inputs: those between `low` and `high`, or for L2 a ball around `x`; all are `[B, ...]`."""

    x: Tensor
    low: Tensor
    high: Tensor
    eps: float
    norm: str

    def ends(self, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the largest value over the inputs of linear functions `[B, K, ...]`, `[B, K]` each."""
        slope = slope.flatten(2)
        if self.norm == "l2":
            value = (slope @ self.x.flatten(1)[..., None])[..., 0]
            reach = self.eps * slope.norm(dim=2)
            return value - reach, value + reach
        middle, half = ((self.high + sign * self.low).flatten(1)[..., None] / 2 for sign in (1, -1))
        value, reach = (slope @ middle)[..., 0], (slope.abs() @ half)[..., 0]
        return value - reach, value + reach


class _Normalisation(nn.Module):
    """The normalisation of a classifier, as a layer."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.mean, self.std = model.mean, model.std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean.to(x)) / self.std.to(x)


class _Block:
    """The affine function between two ReLUs.

    Args:
        layers: the layers, from the first to the last.
        shape: shape of one input.
        like: a tensor with dtype and device of the inputs.
    """

    def __init__(self, layers: list[nn.Module], shape: torch.Size, like: Tensor) -> None:
        self.layers, self.shapes = layers, [shape]
        z = torch.zeros((1, *shape), dtype=like.dtype, device=like.device)
        for layer in layers:
            z = layer(z)
            self.shapes.append(z.shape[1:])
        self.bias = z

    def __call__(self, z: Tensor) -> Tensor:
        """Return the value of the function, `[B, *out]`."""
        for layer in self.layers:
            z = layer(z)
        return z

    def transpose(self, v: Tensor) -> Tensor:
        """Return the adjoint of the linear part: `[B, K, *in]` from `[B, K, *out]`."""
        rows = v.flatten(0, 1)
        for layer, shape in zip(reversed(self.layers), reversed(self.shapes[:-1]), strict=True):
            size = (len(rows), *shape)
            if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
                # autograd would compute the convolution before its adjoint
                setting = layer.stride, layer.padding, layer.dilation, layer.groups
                rows = conv2d_input(size, layer.weight, rows, *setting)
                continue
            with torch.enable_grad():
                points = rows.new_zeros(1).expand(size).requires_grad_()
                (rows,) = torch.autograd.grad(layer(points), points, rows)
        return rows.unflatten(0, v.shape[:2])

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The adjoint of every unit of the output, `[1, K, *in]`, and the bias of the unit, `[1, K]`."""
        units = torch.eye(self.bias.numel(), dtype=self.bias.dtype, device=self.bias.device)
        return self.transpose(units.reshape(1, -1, *self.bias.shape[1:])), self.bias.flatten(1)


def _between_rectifiers(model: Classifier) -> list[list[nn.Module]]:
    """Return the layers before, between and after the ReLUs of a sequential network, with its normalisation."""
    found: list[list[nn.Module]] = [[_Normalisation(model)]]

    def collect(module: nn.Module) -> None:
        if isinstance(module, nn.Sequential):
            for child in module:
                collect(child)
        elif isinstance(module, nn.ReLU):
            found.append([])
        elif isinstance(module, _AFFINE):
            found[-1].append(module)
        else:
            raise Unsupported(
                f"a certificate needs an nn.Sequential of {', '.join(t.__name__ for t in _AFFINE)} and ReLU, and the "
                f"model has a {type(module).__name__}"
            )

    collect(unwrap(model))
    return found


def _bound(blocks: list[_Block], ball: _Ball, y: Tensor) -> Tensor:
    """Return the lower bounds of the margins of a few images, `[B]`."""
    limits = list[tuple[Tensor, Tensor]]()
    for number, block in enumerate(blocks[:-1]):
        # bound every unit before the ReLU by intervals
        nu, constant = block.rows
        before = ball if number == 0 else _intervals(*limits[-1], ball)
        least, most = (end + constant for end in before.ends(nu))
        # bound those units better whose sign the intervals leave open; of the others, only the sign is needed
        if number > 0 and len(open_units := ((least < 0) & (most > 0)).any(0).nonzero()[:, 0]):
            better = _limits(blocks[:number], limits, ball, nu[:, open_units], constant[:, open_units])
            least, most = (
                end.index_copy(1, open_units, found) for end, found in zip((least, most), better, strict=True)
            )
        limits.append((least, most))
    # bound the differences of the logit of y and the others
    classes = torch.eye(blocks[-1].bias.shape[1], dtype=ball.x.dtype, device=y.device)
    c = classes[y][:, None] - classes
    least, _ = _limits(blocks[:-1], limits, ball, blocks[-1].transpose(c), (c * blocks[-1].bias).sum(2))
    return least.scatter(1, y[:, None], torch.inf).amin(1)


def _intervals(least: Tensor, most: Tensor, ball: _Ball) -> _Ball:
    """Return what follows a ReLU whose inputs lie between two bounds, as a box."""
    low, high = least.clamp_min(0), most.clamp_min(0)
    return _Ball(low, low, high, ball.eps, "linf")


def _limits(
    blocks: list[_Block], limits: list[tuple[Tensor, Tensor]], ball: _Ball, nu: Tensor, constant: Tensor
) -> tuple[Tensor, Tensor]:
    """Return lower and upper bounds `[B, K]` of affine functions of what follows the ReLU after the last block.

    Args:
        blocks: the blocks before that ReLU; if there is none, the functions are of the input.
        limits: lower and upper bounds of the units before the ReLU after each block, `[B, n]`.
        nu: the linear part, `[B or 1, K, ...]`.
        constant: the constant part, `[B or 1, K]`.
    """
    low, high = constant, constant
    for block, (least, most) in zip(reversed(blocks), reversed(limits[: len(blocks)]), strict=True):
        # through the ReLU: slope 1 if it is active, 0 if not, and u / (u - l) between two parallel lines if unstable
        unstable = (least < 0) & (most > 0)
        slope = torch.where(unstable, most / (most - least).clamp_min(torch.finfo(nu.dtype).tiny), (least >= 0).to(nu))
        offset = torch.where(unstable, -slope * least, 0.0)[..., None]
        flat = nu.flatten(2)
        low = low + (flat.clamp_max(0) @ offset)[..., 0]
        high = high + (flat.clamp_min(0) @ offset)[..., 0]
        # through the affine function
        nu = (flat * slope[:, None]).reshape(-1, *nu.shape[1:])
        shift = (nu.flatten(2) @ block.bias.flatten()[:, None])[..., 0]
        low, high = low + shift, high + shift
        nu = block.transpose(nu)
    least, most = ball.ends(nu)
    return low + least, high + most
