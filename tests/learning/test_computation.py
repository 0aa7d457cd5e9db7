"""Options of the loop that leave the gradient as it is: parts of a batch, bfloat16, channels last; and the average."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tests.networks import rand
from underfire.errors import InputError
from underfire.learning import Average, Computation, fit

X, Y = rand(14, 2, 6, 6, seed=1), torch.arange(14) % 3


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A convolution and a linear layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).to(dtype)


def trained(net: nn.Module, computation: Computation, *, reduction: str = "none", steps: int = 4) -> list[Tensor]:
    """The weights after steps of SGD on batches of seven images, beside which each batch carries its number."""
    dtype = next(net.parameters()).dtype

    def loss(batch: tuple[int, tuple[Tensor, Tensor]], _: Generator) -> Tensor:
        x, y = batch[1]
        with torch.no_grad():
            net(x)  # as a training that compares with a fixed output does
        return F.cross_entropy(net(x), y, reduction=reduction)

    def batches(step: int, _: Generator) -> Any:
        rows = slice(7 * (step % 2), 7 * (step % 2) + 7)
        return step, (X[rows].to(dtype), Y[rows])

    sgd = torch.optim.SGD(net.parameters(), 0.3, momentum=0.9)
    fit(net, sgd, batches, loss, steps=steps, computation=computation)
    return [weight.detach() for weight in net.parameters()]


def gap(first: list[Tensor], second: list[Tensor]) -> float:
    """The largest difference between two lists of weights."""
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("accumulate", [2, 3, 9])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_the_gradients_of_the_parts_add_up_to_that_of_the_batch(accumulate: int, reduction: str) -> None:
    """Parts of different sizes, and more parts than images."""
    whole = trained(network(), Computation(), reduction=reduction)
    assert gap(whole, trained(network(), Computation(accumulate=accumulate), reduction=reduction)) < 1e-13


def test_losses_of_parts_are_that_of_the_batch() -> None:
    net, found = nn.Linear(1, 1, dtype=torch.float64), list[float]()
    for accumulate in (1, 3):
        sgd = torch.optim.SGD(net.parameters(), 0.0)
        fit(
            net,
            sgd,
            lambda step, _: torch.arange(7, dtype=torch.float64)[:, None],
            lambda x, _: net(x).flatten().square(),
            steps=1,
            computation=Computation(accumulate=accumulate),
            watch=lambda report: found.append(float(report.losses[0])),
        )
    assert found[0] == pytest.approx(found[1], rel=1e-13)


def test_bfloat16_reaches_nearly_the_same_weights() -> None:
    """bfloat16 has eight bits: after four steps of size 0.3, weights differ by less than 0.02."""
    whole, half = (trained(network(torch.float32), Computation(precision=p)) for p in ("full", "bfloat16"))
    first = [weight.detach() for weight in network(torch.float32).parameters()]
    assert 0 < gap(whole, half) < 0.02 < 0.1 < gap(whole, first)
    assert all(weight.dtype == torch.float32 for weight in half)


def test_channels_last_reaches_the_same_weights() -> None:
    net = network()
    assert gap(trained(network(), Computation()), trained(net, Computation(channels_last=True))) < 1e-13
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("buffers", [True, False])
def test_the_average_is_that_of_torch(buffers: bool) -> None:
    net, measured = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), list[Tensor]()
    with torch.no_grad():
        net[0].weight.copy_(rand(4, 3, seed=2))
    wanted = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.7), use_buffers=buffers)
    wanted.update_parameters(net)  # the first update copies
    seen: dict[str, Tensor] = {}

    def watch(_: Any) -> None:
        wanted.update_parameters(net)
        seen.update((name, value.clone()) for name, value in net.state_dict().items())

    def validate() -> dict[str, float]:
        measured.append(net[0].weight.detach().clone())
        return {}

    sgd, average = torch.optim.SGD(net.parameters(), 0.5), Average(0.7, buffers=buffers, warm_up=False)
    options: dict[str, Any] = {"average": average, "validate": validate, "watch": watch}
    fit(net, sgd, lambda step, _: rand(5, 3, seed=step), lambda x, _: net(x).pow(3).sum(1), steps=4, **options)
    averaged = wanted.module.state_dict()
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        source = averaged if "running" not in name or buffers else seen
        assert torch.allclose(value, source[name], atol=1e-6), name
    assert not torch.allclose(net[0].weight, seen["0.weight"])
    assert torch.equal(measured[-1], net[0].weight)


def test_a_young_average_forgets_the_first_weights_quickly() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
    average = Average(0.999)
    average.begin(net)
    with torch.no_grad():
        net.weight.fill_(0.0)
    average.update(1)
    assert float(average.state_dict()["weight"]) == pytest.approx(2 / 11)


@pytest.mark.parametrize(
    "make",
    [lambda: Computation(accumulate=0), lambda: Computation(precision="float16"), lambda: Average(1.0)],  # type: ignore
)
def test_settings_out_of_range(make: Any) -> None:
    with pytest.raises(InputError, match="0|float16|1.0"):
        make()


def test_a_batch_without_tensors_is_not_split() -> None:
    net = nn.Linear(1, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises(InputError, match="parts, got 0"):
        fit(net, sgd, lambda step, _: step, lambda *_: net.weight.sum(), steps=1, computation=Computation(accumulate=2))
