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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.budgets import LIBRARIES, ORDERS
from benchmarks.networks import NETWORKS
from benchmarks.timing import Row
from underfire.measures import perturbation
from underfire.measures.curves import optimality

BOTH = ("carlini_wagner", "fmn", "ddn", "fab", "deepfool", "apgd", "sigma_zero")
#: The attacks that are compared in L1 and L0 on MNIST.
SPARSE = ("fmn", "sigma_zero", "apgd", "ead", "ead, abort_early", "alma")
#: Those that are compared in L2 and L-infinity on MNIST, where half of the pixels lie at the border of the box.
DENSE = ("ddn", "fab", "deepfool")


class Size(NamedTuple):
    """The size of a comparison: independent runs, images in each, and propagations for each image."""

    runs: int
    images: int
    propagations: int


#: The sizes of the tables. On CIFAR-10, three runs of 128 images with 2,000 propagations take ResNet-20 more than ten
#: hours on two cores; this size is a 24th of that, and the wide network, whose passes cost more, has a fifth of it.
#: The passes of the small networks for MNIST cost little, and three runs show the spread.
RESNET20, WRESNET = Size(1, 32, 1000), Size(1, 16, 400)
MNIST = {"mnist_adv": Size(3, 128, 1000), "mnist_trades": Size(3, 128, 200)}
MNIST_DENSE = Size(1, 16, 400)


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

    Results are written to `folder`, or to the folder that the environment variable `QUALITY` names, and not computed
    again.
    """
    if folder is None and "QUALITY" in os.environ:
        folder = Path(os.environ["QUALITY"])
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
    return {"resnet20": quality("resnet20", *RESNET20), "wresnet_adv": quality("wresnet_adv", *WRESNET)}


def on_mnist() -> dict[str, Any]:
    """Compare the attacks in L1 and L0 on two networks that are robust."""
    return {name: quality(name, *size, norms=("l1", "l0"), names=SPARSE) for name, size in MNIST.items()}


def dense_on_mnist() -> dict[str, Any]:
    """Compare attacks with many changed pixels in L2 and L-infinity on a network that is not robust, and on two."""
    networks = ("mnist_normal", "mnist_adv", "mnist_trades")
    return {name: quality(name, *MNIST_DENSE, norms=("l2", "linf"), names=DENSE) for name in networks}


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
