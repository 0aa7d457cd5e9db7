"""Compare attacks of minimum size at an equal budget, as AttackBench does: how close each is to the best, by norm.

Each of `NETWORKS` has a budget of propagations per image; each forward pass and each backward pass counts as one. A run
has images and a seed of its own, so that the spread over the runs shows what a difference means. The attacks of
underfire and of adv_lib are evaluated from the images that they return.

`python -m benchmarks.quality FOLDER NETWORK 3x128x1000 [NORM ...]` computes the results that are missing in `FOLDER`
(3 runs of 128 images, 1,000 propagations), in `WORKERS` processes of one thread each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.setting import correct, declare_missing_operators, mnist, zoo
from benchmarks.timing import Row
from underfire.ascent.nearest import Nearest
from underfire.data import Dataset
from underfire.measures import perturbation
from underfire.measures.curves import optimality
from underfire.model import Classifier

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0, "l0": 0.0}
#: The number of sizes at which an attack of fixed size is run, between 0 and twice the first.
ROUNDS = 10
BOTH = ("carlini_wagner", "fmn", "ddn", "fab", "deepfool", "apgd", "sigma_zero")
#: The attacks that are compared in L1 and L0 on MNIST.
SPARSE = ("fmn", "sigma_zero", "apgd", "ead", "ead, abort_early", "alma")
#: Those that are compared in L2 and L-infinity on MNIST, where half of the pixels lie at the border of the box.
DENSE = ("ddn", "fab", "deepfool")


@dataclass(frozen=True)
class Network:
    """A network of the benchmark.

    Attributes:
        load: loads the classifier.
        first: the first size at which attacks of fixed size are run, by norm: about the median size that is needed.
        data: loads the test images; None is those of CIFAR-10.
    """

    load: Callable[[], Classifier]
    first: dict[str, float]
    data: Callable[[], Dataset] | None = None

    def setting(self, n: int, run: int) -> tuple[Classifier, Tensor, Tensor]:
        """Return the classifier, and the images and labels of a run."""
        return correct(self.load(), n, first=run * n, images=None if self.data is None else self.data())


_BOOPATHY = "interpretability_aware"
NETWORKS = {
    "resnet20": Network(partial(zoo, "resnet20_cifar10"), {"l2": 0.5, "linf": 0.01, "l1": 5.0}),
    "wresnet_adv": Network(partial(zoo, "cifar10_wresnet_adv", _BOOPATHY), {"l2": 0.7, "linf": 0.03, "l1": 12.0}),
    "mnist_normal": Network(partial(zoo, "mnist_small_normal", _BOOPATHY), {"l2": 1.0, "linf": 0.1, "l1": 8.0}, mnist),
    "mnist_adv": Network(partial(zoo, "mnist_small_adv", _BOOPATHY), {"l2": 2.0, "linf": 0.3, "l1": 12.0}, mnist),
    "mnist_trades": Network(partial(zoo, "mnist_small_cnn", "trades"), {"l2": 2.0, "linf": 0.35, "l1": 12.0}, mnist),
}


def bisected(attack: Callable[..., Tensor], norm: str, first: float, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the nearest success of an attack of fixed size, by bisection of the size for every image separately."""
    nearest = Nearest(x, norm)
    low, eps = torch.zeros(len(x)), torch.full((len(x),), first)
    high = 2 * eps
    for _ in range(ROUNDS):
        x_adv = attack(model, x, y, norm=norm, eps=eps)
        with torch.no_grad():
            success = model(x_adv).argmax(1) != y
        nearest.update(x_adv, success)
        low, high = torch.where(success, low, eps), torch.where(success, nearest.size.minimum(high), high)
        eps = (low + high) / 2
    return nearest.x_adv


def ours(norm: str, budget: int, first: float | None) -> dict[str, Attack]:
    """Return the attacks of underfire for a norm, with settings that spend the budget.

    Args:
        first: the first size of attacks of fixed size; None leaves them out.
    """
    attacks = {card.name: card for card in uf.cards("attack")}
    passes = budget // 2 - 1  # steps of one forward and one backward pass; two forward passes before and after them
    settings: dict[str, dict[str, Any]] = {
        "fmn": {"steps": passes},
        "ddn": {"steps": passes},
        # without aborting early, which would not use most of the budget; the steps of a run were found by experiment
        "carlini_wagner": {"steps": passes // {"l2": 9, "linf": 22, "l0": 30}.get(norm, 1), "abort_early": False},
        "ead": {"steps": budget // 3 // 9, "rule": "L1", "abort_early": False},
        "fab": {"steps": budget // 11 - 1},
        "sigma_zero": {"steps": passes},
        "deepfool": {"steps": 50},
    }
    found: dict[str, Attack] = {}
    for name, options in settings.items():
        if name in attacks and norm in attacks[name].facts.norms:
            found[name] = partial(attacks[name].function, norm=norm, **options)
    if norm == "l1":
        found["ead, abort_early"] = partial(attacks["ead"].function, **settings["ead"] | {"abort_early": True})
    if first is not None and norm in attacks["apgd"].facts.norms:
        generator = torch.Generator().manual_seed(torch.initial_seed())
        steps = budget // 2 // ROUNDS - 2
        once = partial(attacks["apgd"].function, steps=steps, objective="dlr", keep="success", generator=generator)
        found["apgd"] = partial(bisected, once, norm, first)
    return found


def theirs(norm: str, budget: int, first: float | None) -> dict[str, Attack]:
    """Return the attacks of adv_lib for a norm, with settings that spend the budget; see `ours`."""
    declare_missing_operators()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv_lib imports it for plots
    from adv_lib import attacks as adv
    from adv_lib.attacks.auto_pgd import minimal_apgd

    order, passes = ORDERS[norm], budget // 2
    bounded = {"max_eps": first, "binary_search_steps": ROUNDS, "n_iter": passes // ROUNDS - 2}
    everywhere: dict[str, Attack] = {
        "fmn": partial(adv.fmn, norm=order, steps=passes),
        "pdpgd": partial(adv.pdpgd, norm=order, num_steps=passes),
    }
    by_norm: dict[str, dict[str, Attack]] = {
        "l2": {
            "ddn": partial(adv.ddn, steps=passes, levels=None),
            "carlini_wagner": partial(adv.carlini_wagner_l2, binary_search_steps=9, max_iterations=passes // 9),
            "alma": partial(adv.alma, distance="l2", num_steps=passes, init_lr_distance=1),
            "deepfool": partial(adv.df, norm=2, steps=50),
            "superdeepfool": adv.sdf,
        },
        "linf": {
            "carlini_wagner": partial(adv.carlini_wagner_linf, max_iterations=passes // 22),
            "deepfool": partial(adv.df, norm=order, steps=50),
        },
        "l1": {"alma": partial(adv.alma, distance="l1", num_steps=passes, init_lr_distance=0.5)},
        "l0": {"sigma_zero": partial(adv.sigma_zero, num_steps=passes), "vfga": partial(adv.vfga, targeted=False)},
    }
    found = everywhere | by_norm[norm]
    if first is not None:
        found["apgd"] = partial(minimal_apgd, norm=order, **bounded)
        found["fab"] = partial(adv.fab, norm=order, n_iter=budget // 11 - 1)
    return found


LIBRARIES = {"underfire": ours, "adv_lib": theirs}


@dataclass(frozen=True)
class Job:
    """One run of one attack on `n` images, with a budget of propagations."""

    network: str
    run: int
    norm: str
    library: str
    attack: str
    n: int
    budget: int

    def measure(self) -> dict[str, Any]:
        """Run the attack; return the size of every success (or None), the passes and the seconds of the processor."""
        torch.manual_seed(self.run)  # for the random starts of adv_lib
        network = NETWORKS[self.network]
        model, x, y = network.setting(self.n, self.run)
        method = LIBRARIES[self.library](self.norm, self.budget, network.first.get(self.norm))[self.attack]
        start = time.process_time()
        with model.counting() as count:
            x_adv = method(model, x.clone(), y.clone()).detach()
        seconds = time.process_time() - start
        success = (model.predict(x_adv).argmax(1) != y) & ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
        sizes = perturbation.sizes(x, x_adv)[self.norm]
        return asdict(self) | {
            "sizes": [size if fooled else None for size, fooled in zip(sizes.tolist(), success.tolist(), strict=True)],
            "forwards": count.forwards / len(x),
            "backwards": count.backwards / len(x),
            "seconds": seconds,
        }

    def save(self, folder: Path) -> None:
        """Run the attack and write its result, unless the file exists."""
        torch.set_num_threads(1)
        path = folder / f"{self.network}-{self.run}-{self.norm}-{self.library}-{self.attack}.json"
        if not path.exists():
            path.write_text(json.dumps(self.measure()) + "\n")


Runs = list[dict[str, Any]]


def compared(results: Runs) -> dict[str, Runs]:
    """Return the attacks of every norm, sorted by optimality relative to the best size of all attacks in each run."""
    tables: dict[str, Runs] = {}
    for norm in ORDERS:
        rows: dict[tuple[str, str], Runs] = {}
        for number in sorted({result["run"] for result in results}):
            runs = [result for result in results if result["norm"] == norm and result["run"] == number]
            sizes = [torch.tensor([float("inf") if s is None else s for s in result["sizes"]]) for result in runs]
            best = torch.stack(sizes).amin(0) if sizes else torch.empty(0)
            for result, size in zip(runs, sizes, strict=True):
                rows.setdefault((result["attack"], result["library"]), []).append(
                    {
                        "optimality": optimality(size, best),
                        "median size": float(size.median()),
                        "success": float(size.isfinite().float().mean()),
                        **{name: result[name] for name in ("forwards", "backwards", "seconds")},
                    }
                )
        means = [
            {"attack": attack, "library": library}
            | {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
            | {"optimality of the runs": [run["optimality"] for run in runs]}
            for (attack, library), runs in rows.items()
        ]
        if means:
            tables[norm] = sorted(means, key=lambda row: -row["optimality"])
    return tables


def quality(
    network: str,
    runs: int,
    n: int,
    budget: int,
    folder: Path | None = None,
    norms: tuple[str, ...] = tuple(ORDERS),
    names: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run the attacks called `names`, or all, and compare them.

    Results are written to `folder`, if one is given, and not computed again.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return quality(network, runs, n, budget, Path(temporary), norms, names)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(network, number, norm, library, attack, n, budget)
        for number in range(runs)
        for norm in norms
        for library, attacks in LIBRARIES.items()
        for attack in attacks(norm, budget, NETWORKS[network].first.get(norm))
        if not names or attack in names
    ]
    # run what is missing, each attack in a process
    context, workers = multiprocessing.get_context("spawn"), int(os.environ.get("WORKERS", "2"))
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {f"{job.run} {job.norm} {job.library} {job.attack}": pool.submit(job.save, folder) for job in jobs}
        # an error in one attack must not stop the others
        failed = {name: repr(error) for name, done in running.items() if (error := done.exception()) is not None}
    results = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{network}-*.json"))]
    return {"images": n, "budget": budget, "norms": compared(results), "failed": failed}


def on_cifar10() -> dict[str, Any]:
    """Compare all attacks on a network that is not robust, and on one that was trained adversarially."""
    return {"resnet20": quality("resnet20", 3, 128, 2000), "wresnet_adv": quality("wresnet_adv", 3, 128, 500)}


def on_mnist() -> dict[str, Any]:
    """Compare the attacks in L1 and L0 on a network that is not robust, and on two that are."""
    return {
        name: quality(name, 3, 128, budget, norms=("l1", "l0"), names=SPARSE)
        for name, budget in (("mnist_adv", 1000), ("mnist_trades", 200))
    }


def dense_on_mnist() -> dict[str, Any]:
    """Compare attacks with many changed pixels in L2 and L-infinity on a network that is not robust, and on two."""
    networks = ("mnist_normal", "mnist_adv", "mnist_trades")
    return {name: quality(name, 1, 16, 400, norms=("l2", "linf"), names=DENSE) for name in networks}


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the best attack of each library by network and norm, and with the attacks that both have."""
    table: list[Row] = []
    for network, result in found.items():
        for norm, attacks in result["norms"].items():
            label = f"minimum size in {norm} on {network}, {result['images']} images, {result['budget']} propagations"
            # attacks that exceeded the budget, because their steps cannot be set in advance, do not compete
            fair = [row for row in attacks if row["forwards"] + row["backwards"] <= 1.01 * result["budget"]]
            for library in LIBRARIES:
                top = next(row for row in fair if row["library"] == library)
                want = "≥ the best of adv_lib − 0.005" if library == "underfire" else "the peer"
                value = f"{top['attack']} {_format(top)}"
                table.append((f"{label}, best attack of {library}: optimality", value, want))
            for name in BOTH:
                pair = {row["library"]: row for row in attacks if row["attack"] == name}
                if len(pair) == 2:
                    value = "; ".join(f"{library} {_format(pair[library])}" for library in LIBRARIES)
                    table.append((f"{label}, {name}: optimality", value, "≥ adv_lib's − 0.01"))
    return table


def _format(row: dict[str, Any]) -> str:
    passes = f"{row['forwards']:.0f} forwards, {row['backwards']:.0f} backwards"
    several = sorted(row["optimality of the runs"])
    span = f"{several[0]:.3f} to {several[-1]:.3f} in {len(several)} runs, " if len(several) > 1 else ""
    text = f"median {row['median size']:.4g}, success {row['success']:.3f}, {passes}"
    return f"{row['optimality']:.4f} ({span}{text})"


def _show(found: dict[str, Any]) -> None:
    for norm, attacks in found["norms"].items():
        for row in attacks:
            print(f"{norm:5} {row['attack']:17} {row['library']:10} {_format(row)}, {row['seconds']:.1f} s")
    for name, error in found["failed"].items():
        print(name, error)


if __name__ == "__main__":
    folder, network, size, *norms = sys.argv[1:]
    runs, images, propagations = (int(value) for value in size.split("x"))
    _show(quality(network, runs, images, propagations, Path(folder), tuple(norms) or tuple(ORDERS)))
