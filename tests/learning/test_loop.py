"""The loop that trains: it learns, it resumes to the same weights from any step, it stops where a number is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from tests.networks import rand, randn
from underfire.errors import InputError, ModelError
from underfire.learning import (
    Average,
    Checkpoint,
    Computation,
    Drawn,
    KeepBest,
    MaskingGuard,
    Report,
    Shuffled,
    cosine,
    crop_and_flip,
    fit,
    one_cycle,
    warm_up,
)

X, Y = rand(20, 2, 6, 6, seed=1), torch.arange(20) % 2


class Stop(Exception):
    """The process is killed."""


def network(seed: int = 0) -> nn.Module:
    """A network with every kind of state: weights, running statistics, and random numbers of dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 2))
        return nn.Sequential(*parts).train()


OPTIMISERS: dict[str, Any] = {
    "sgd": lambda net: torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, nesterov=True),
    "adam": lambda net: torch.optim.Adam(net.parameters(), 1e-2),
    "adamw": lambda net: torch.optim.AdamW(net.parameters(), 1e-2, amsgrad=True),
    "rmsprop": lambda net: torch.optim.RMSprop(net.parameters(), 1e-2, centered=True),
}
SCHEDULES: dict[str, Any] = {"sgd": warm_up(3, cosine()), "adam": None, "adamw": one_cycle(), "rmsprop": cosine(1e-4)}


def train(how: str, checkpoint: Checkpoint | None = None, kill: int = -1, steps: int = 8, **more: Any) -> nn.Module:
    """Train a network with the images in random order, shifted and with noise; stop before step `kill`."""
    net = network()
    more.pop("nets", []).append(net)

    def loss(batch: tuple[Tensor, Tensor], generator: Generator) -> Tensor:
        x, y = batch
        return F.cross_entropy(net(x + 0.1 * torch.randn(x.shape, generator=generator)), y, reduction="none")

    def progress(done: int, total: int) -> None:
        assert total == steps
        if done == kill:
            raise Stop

    batches = Shuffled((X, Y), 6, augment=crop_and_flip(1))
    options: dict[str, Any] = {"schedule": SCHEDULES[how], "generator": Generator().manual_seed(7), **more}
    fit(net, OPTIMISERS[how](net), batches, loss, steps=steps, checkpoint=checkpoint, progress=progress, **options)
    return net


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether all weights and running statistics are bit-identical."""
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("how", OPTIMISERS)
def test_killed_at_any_step_it_resumes_to_the_same_weights(how: str, tmp_path: Path) -> None:
    before, whole = torch.get_rng_state(), train(how)
    assert torch.equal(before, torch.get_rng_state())
    for kill in range(8) if how == "sgd" else (5,):
        checkpoint = Checkpoint(tmp_path / f"{how}{kill}", {"data": "noise"}, every=3)
        with pytest.raises(Stop):
            train(how, checkpoint, kill)
        assert same(whole, train(how, checkpoint))
    assert not same(whole, network())


def test_killed_with_every_option_it_resumes_to_the_same_weights(tmp_path: Path) -> None:
    nets: list[nn.Module] = []

    def validate() -> dict[str, float]:  # numbers that depend on nothing but the weights
        value = sum(float(weight.detach().double().sum()) for weight in nets[-1].parameters())
        return {"weak": 0.8, "strong": 1e3 * value % 1}

    def options() -> dict[str, Any]:
        every = Computation(accumulate=2, precision="bfloat16", channels_last=True)
        guards = [KeepBest("strong"), MaskingGuard("weak", "strong", then="go_back", limit=9)]
        return {"computation": every, "average": Average(0.9), "validate": validate, "guards": guards, "nets": nets}

    told: list[Report] = []
    whole, path = train("adamw", **options(), watch=told.append), tmp_path / "state"
    assert 0 < sum(bool(report.notes) for report in told) < 7
    for kill in (4, 7):
        with pytest.raises(Stop):
            train("adamw", Checkpoint(path, every=3), kill, **options())
    assert same(whole, train("adamw", Checkpoint(path), **options()))
    assert same(whole, train("adamw", Checkpoint(path), **options()))  # nothing is left to do
    assert not same(whole, train("adamw"))
    for name, other in {"average": Average(0.8), "precision": Computation()}.items():
        with pytest.raises(InputError, match=f"its {name} differs"):
            train("adamw", Checkpoint(path), **options() | {name if name == "average" else "computation": other})


def test_it_is_the_loop_that_one_writes() -> None:
    """Without random numbers in the network: Adam, a permutation for each epoch, batches in its order."""
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    second.load_state_dict(first.state_dict())
    x, wanted = randn(10, 2, seed=1), randn(10, 1, seed=2)
    adam = torch.optim.Adam(first.parameters(), 0.1)
    outside = nn.Parameter(torch.ones(1))  # takes part in the loss and is not trained

    def loss(batch: tuple[Tensor, Tensor], _: Generator) -> Tensor:
        return outside * F.mse_loss(first(batch[0]), batch[1])

    with torch.no_grad():
        fit(first, adam, Shuffled((x, wanted), 4), loss, steps=6, generator=Generator().manual_seed(3))
    generator, adam = Generator().manual_seed(3), torch.optim.Adam(second.parameters(), 0.1)
    for _ in range(2):
        for rows in torch.randperm(10, generator=generator).split(4):
            adam.zero_grad()
            F.mse_loss(second(x[rows]), wanted[rows]).backward()
            adam.step()
    assert same(first, second)
    assert outside.grad is None and first.weight.grad is None


def test_it_learns_and_tells_what_it_does() -> None:
    net, told, done = nn.Linear(2, 1), list[Report](), list[int]()
    w = torch.tensor([[2.0, -1.0]])
    x = randn(64, 2, seed=4)

    def loss(x: Tensor, _: Generator) -> Tensor:
        return (net(x) - x @ w.T).square().mean(1)

    fit(
        net,
        torch.optim.SGD(net.parameters(), 0.1),
        Shuffled(x, 16),
        loss,
        steps=90,
        schedule=lambda optimiser, steps: torch.optim.lr_scheduler.StepLR(optimiser, steps // 2),
        validate=lambda: {"error": float((net.weight - w).detach().abs().max())},
        validate_every=40,
        progress=lambda step, _: done.append(step),
        watch=told.append,
    )
    assert (net.weight - w).abs().max() < 1e-3
    assert done == list(range(91)) and [r.step for r in told] == done[1:]
    assert [r.step for r in told if r.metrics] == [40, 80, 90]
    assert told[0].metrics == {} and told[-1].metrics["error"] < 1e-3 < told[0].losses[0]
    assert (told[44].rate, told[45].rate) == pytest.approx((0.1, 0.01))


def test_objectives_alternate() -> None:
    net, seen = nn.Linear(1, 1, bias=False), list[float]()

    def objective(wanted: float) -> Any:
        def loss(x: Tensor, _: Generator) -> Tensor:
            seen.append(float(net.weight.detach()))
            return (net(x) - wanted).square().sum()

        return loss

    sgd = torch.optim.SGD(net.parameters(), 0.5)  # one step reaches the minimum
    fit(net, sgd, lambda step, _: torch.ones(1, 1), [objective(3.0), objective(-2.0)], steps=2)
    assert seen[1:] == [3.0, -2.0, 3.0] and float(net.weight.detach()) == -2.0


def test_a_drawn_step_does_not_depend_on_the_steps_before() -> None:
    batches, generator = Drawn((X, Y), 5, seed=11), Generator()
    x, y = batches(4, generator)
    noise = torch.rand(3, generator=generator)
    assert torch.equal(batches(4, Generator().manual_seed(99))[0], x) and x.shape == (5, 2, 6, 6) and y.shape == (5,)
    own = Generator().manual_seed(11 * 1_000_003 + 4)
    assert torch.equal(X[torch.randint(20, (5,), generator=own)], x)
    assert torch.equal(torch.rand(3, generator=own), noise)
    assert not torch.equal(Drawn((X, Y), 5, seed=11, offset=1)(4, generator)[0], x)


@pytest.mark.parametrize("options", [False, True])
@pytest.mark.parametrize("where", ["loss", "weight"])
def test_a_lost_number_stops_it_and_the_last_good_state_is_kept(where: str, options: bool, tmp_path: Path) -> None:
    """In step 6 of 9 the loss, or only its gradient, is not a number."""
    more: dict[str, Any] = {}
    if options:
        more = {"average": Average(), "validate": lambda: {"one": 1.0}, "guards": [KeepBest("one")]}
        more["computation"] = Computation(precision="bfloat16")
    net, path = nn.Linear(2, 1), tmp_path / "state"

    def loss(batch: int, _: Generator) -> Tensor:
        each = net(torch.ones(3, 2)).square().flatten()
        if batch != 5:
            return each
        return each * torch.tensor([1, torch.nan, 1]) if where == "loss" else each + (each * 0).sqrt()

    sgd = torch.optim.SGD(net.parameters(), 0.01)
    said = "1 of 3 images in step 6" if where == "loss" else "after step 6"
    with pytest.raises(ModelError, match=said) as caught:
        fit(net, sgd, lambda step, _: step, loss, steps=9, checkpoint=Checkpoint(path, every=2), **more)
    assert f"{path} holds the state after step 4" in str(caught.value)
    assert all(torch.isfinite(value).all() for value in load_file(path).values())
    assert ("average.weight" in load_file(path)) == options
    net.reset_parameters()
    with pytest.raises(ModelError, match="step 6"):  # without a checkpoint too
        fit(net, sgd, lambda step, _: step, loss, steps=6)


def test_a_checkpoint_of_version_0_1_is_read(tmp_path: Path) -> None:
    """It calls the memory of the optimiser `adam`, and has no generator, because every step seeds its own."""

    def train(checkpoint: Checkpoint | None, steps: int) -> nn.Module:
        net = nn.Linear(72, 1)
        with torch.no_grad():
            net.weight.fill_(0.1), net.bias.zero_()
        adam = torch.optim.Adam(net.parameters(), 0.1)
        batches = Drawn(X.flatten(1), 4, seed=2)
        fit(net, adam, batches, lambda x, _: net(x).square(), steps=steps, checkpoint=checkpoint)
        return net

    path = tmp_path / "state"
    train(Checkpoint(path), 3)
    with safe_open(path, "pt") as file:
        facts = file.metadata()
    old = {k.replace("optimiser.", "adam."): v for k, v in load_file(path).items() if k != "generator"}
    assert any(name.startswith("adam.0.") for name in old)
    save_file(old, path, facts)
    assert same(train(Checkpoint(path), 6), train(None, 6))


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    train("adam", Checkpoint(path, {"data": "noise"}))
    with pytest.raises(InputError, match="its data differs"):
        train("adam", Checkpoint(path, {"data": "other"}))
    with pytest.raises(InputError, match="8 steps .* steps=7"):
        train("adam", Checkpoint(path), steps=7)
    net = nn.Linear(2, 1)
    adam = torch.optim.Adam(net.parameters())
    with pytest.raises(InputError, match=r"of another network.*bias") as caught:
        fit(net, adam, Shuffled(X, 6), lambda x, _: x.mean(), steps=20, checkpoint=Checkpoint(path))
    assert len(str(caught.value).splitlines()) == 1
    path.write_text("nothing")
    with pytest.raises(InputError, match="not a whole safetensors file"):
        train("adam", Checkpoint(path))
    longer = Checkpoint(tmp_path / "sgd")
    train("sgd", longer)
    with pytest.raises(InputError, match="its steps differs"):  # the schedule was that of 8 steps
        train("sgd", longer, steps=12)
