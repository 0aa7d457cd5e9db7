"""Compare attacks of minimum size at an equal budget, as AttackBench does: how close each is to the best, by norm.

The network is ResNet-20 on CIFAR-10. The budget is 2,000 propagations per image; each forward pass and each backward
pass counts as one. The attacks of underfire and of adv_lib are evaluated from the images that they return.

`python -m benchmarks.quality FOLDER 32x2000 [NORM ...]` computes the results that are missing in `FOLDER` (32 images,
2,000 propagations), two at a time with one thread each.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import underfire as uf
from benchmarks.setting import cifar_resnet20, declare_missing_operators
from benchmarks.timing import Row
from underfire.ascent.nearest import Nearest
from underfire.measures import perturbation
from underfire.measures.curves import optimality

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0, "l0": 0.0}
#: The first size at which attacks of fixed size are run, and the number of sizes.
FIRST, ROUNDS = {"l2": 0.5, "linf": 0.01, "l1": 5.0}, 10
BOTH = ("carlini_wagner", "fmn", "ddn", "apgd", "sigma_zero")


def bisected(attack: Callable[..., Tensor], norm: str, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the nearest success of an attack of fixed size, by bisection of the size for every image separately."""
    nearest = Nearest(x, norm)
    low, eps = torch.zeros(len(x)), torch.full((len(x),), FIRST[norm])
    high = 2 * eps
    for _ in range(ROUNDS):
        x_adv = attack(model, x, y, norm=norm, eps=eps)
        with torch.no_grad():
            success = model(x_adv).argmax(1) != y
        nearest.update(x_adv, success)
        low, high = torch.where(success, low, eps), torch.where(success, nearest.size.minimum(high), high)
        eps = (low + high) / 2
    return nearest.x_adv


def ours(norm: str, budget: int) -> dict[str, Attack]:
    """Return the attacks of underfire for a norm, with settings that spend the budget."""
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
    if "apgd" in attacks and norm in attacks["apgd"].facts.norms:
        generator = torch.Generator().manual_seed(0)
        steps = budget // 2 // ROUNDS - 2
        once = partial(attacks["apgd"].function, steps=steps, objective="dlr", keep="success", generator=generator)
        found["apgd"] = partial(bisected, once, norm)
    return found


def theirs(norm: str, budget: int) -> dict[str, Attack]:
    """Return the attacks of adv_lib for a norm, with settings that spend the budget."""
    declare_missing_operators()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv_lib imports it for plots
    from adv_lib import attacks as adv
    from adv_lib.attacks.auto_pgd import minimal_apgd

    order, passes = ORDERS[norm], budget // 2
    bounded = {"max_eps": FIRST.get(norm), "binary_search_steps": ROUNDS, "n_iter": passes // ROUNDS - 2}
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
    if norm in FIRST:
        found["apgd"] = partial(minimal_apgd, norm=order, **bounded)
        found["fab"] = partial(adv.fab, norm=order, n_iter=budget // 11 - 1)
    return found


LIBRARIES = {"underfire": ours, "adv_lib": theirs}


def run(norm: str, library: str, attack: str, n: int, budget: int) -> dict[str, Any]:
    """Run one attack on `n` images; return the size of every success (or None), the passes and the seconds."""
    torch.manual_seed(0)  # for the random starts of adv_lib
    model, x, y = cifar_resnet20(n)
    method = LIBRARIES[library](norm, budget)[attack]
    start = time.perf_counter()
    with model.counting() as count:
        x_adv = method(model, x.clone(), y.clone()).detach()
    seconds = time.perf_counter() - start
    success = (model.predict(x_adv).argmax(1) != y) & ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    sizes = perturbation.sizes(x, x_adv)[norm]
    return {
        "norm": norm,
        "library": library,
        "attack": attack,
        "budget": budget,
        "sizes": [size if fooled else None for size, fooled in zip(sizes.tolist(), success.tolist(), strict=True)],
        "forwards": count.forwards / len(x),
        "backwards": count.backwards / len(x),
        "seconds": seconds,
    }


def _saved(folder: Path, norm: str, library: str, attack: str, n: int, budget: int) -> None:
    """Run one attack and write its result, unless the file exists."""
    torch.set_num_threads(1)
    path = folder / f"{norm}-{library}-{attack}.json"
    if not path.exists():
        path.write_text(json.dumps(run(norm, library, attack, n, budget)) + "\n")


def compared(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the attacks of every norm, sorted by optimality relative to the best size of all attacks."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for norm in ORDERS:
        runs = [result for result in results if result["norm"] == norm]
        if not runs:
            continue
        sizes = torch.tensor([[float("inf") if s is None else s for s in result["sizes"]] for result in runs])
        best = sizes.amin(0)
        rows = [
            {
                "attack": result["attack"],
                "library": result["library"],
                "optimality": optimality(size, best),
                "median size": float(size.median()),
                "success": float(size.isfinite().float().mean()),
                **{name: result[name] for name in ("forwards", "backwards", "seconds")},
            }
            for result, size in zip(runs, sizes, strict=True)
        ]
        tables[norm] = sorted(rows, key=lambda row: -row["optimality"])
    return tables


def quality(
    n: int = 32,
    budget: int = 2000,
    workers: int = 2,
    folder: Path | None = None,
    norms: tuple[str, ...] = tuple(ORDERS),
) -> dict[str, Any]:
    """Run all attacks in all norms, and compare them; results are written to `folder`, and not computed again."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            return quality(n, budget, workers, Path(temporary), norms)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (norm, library, attack, n, budget)
        for norm in norms
        for library, attacks in LIBRARIES.items()
        for attack in attacks(norm, budget)
    ]
    # run what is missing, each attack in a process
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = {" ".join(job[:3]): pool.submit(_saved, folder, *job) for job in jobs}
        # an error in one attack must not stop the others
        failed = {name: repr(error) for name, done in runs.items() if (error := done.exception()) is not None}
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {
        "images": n,
        "budget": budget,
        "norms": compared(results),
        "failed": failed,
    }


def rows(found: dict[str, Any]) -> list[Row]:
    """Return rows with the best attack of each library by norm, and with the attacks that both have."""
    table: list[Row] = []
    for norm, attacks in found["norms"].items():
        # attacks that exceeded the budget, because their steps cannot be set in advance, do not compete
        fair = [row for row in attacks if row["forwards"] + row["backwards"] <= 1.01 * found["budget"]]
        best = {library: [row for row in fair if row["library"] == library] for library in LIBRARIES}
        for library, names in best.items():
            top = names[0]
            want = "≥ the best of adv_lib − 0.005" if library == "underfire" else "the peer"
            table.append(
                (
                    f"minimum size in {norm}, best attack of {library}: optimality",
                    f"{top['attack']} {_format(top)}",
                    want,
                )
            )
        for name in BOTH:
            pair = {row["library"]: row for row in attacks if row["attack"] == name}
            if len(pair) == 2:
                value = "; ".join(f"{library} {_format(pair[library])}" for library in LIBRARIES)
                table.append((f"minimum size in {norm}, {name}: optimality", value, "≥ adv_lib's − 0.01"))
    return table


def _format(row: dict[str, Any]) -> str:
    passes = f"{row['forwards']:.0f} forwards, {row['backwards']:.0f} backwards"
    return f"{row['optimality']:.4f} (median {row['median size']:.4g}, success {row['success']:.3f}, {passes})"


def _show(found: dict[str, Any]) -> None:
    for norm, attacks in found["norms"].items():
        for row in attacks:
            print(f"{norm:5} {row['attack']:15} {row['library']:10} {_format(row)}, {row['seconds']:.1f} s")
    for name, error in found["failed"].items():
        print(name, error)


if __name__ == "__main__":
    images, propagations = (int(value) for value in sys.argv[2].split("x"))
    _show(quality(images, propagations, folder=Path(sys.argv[1]), norms=tuple(sys.argv[3:]) or tuple(ORDERS)))
