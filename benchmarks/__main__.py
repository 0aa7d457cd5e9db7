"""Run benchmarks, write their results and `docs/benchmarks.md`: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

import underfire
from benchmarks import (
    adv2,
    adv2_mask,
    autoattack,
    beside,
    certificates,
    choices,
    class_activation,
    deep_validation,
    explanation_measures,
    guard,
    integrated_gradients,
    jsma,
    lime_images,
    mask,
    memory,
    minimum,
    ml_loo,
    occlusion,
    one_pixel,
    pgd,
    propagation,
    quality,
    rts,
    scale,
    second_derivatives,
    small_batches,
    smoothing,
    startup,
    training,
    training_loop,
    transfer,
)
from benchmarks.setting import describe
from benchmarks.timing import Benchmark
from benchmarks.verdicts import MISSED, verdicts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "docs" / "benchmarks.md"

CIFAR, IMAGENET = ("CIFAR-10",), ("ImageNet",)
BOTH = (*IMAGENET, *CIFAR)

MEASURED = {
    "pgd-bare-loop": Benchmark(pgd.against_bare_loop, pgd.rows_against_bare_loop, CIFAR),
    "pgd-peers": Benchmark(pgd.against_peers, pgd.rows_against_peers, CIFAR),
    "adv2-step": Benchmark(adv2.steps, adv2.rows, IMAGENET),
    "adv2-batch": Benchmark(adv2.batches, adv2.rows_batches, IMAGENET),
    "adv2-derivative": Benchmark(second_derivatives.measure, second_derivatives.rows, IMAGENET),
    "adv2-mask-iteration": Benchmark(adv2_mask.iterations, adv2_mask.rows_iterations, IMAGENET),
    "adv2-mask-digits": Benchmark(adv2_mask.digits, adv2_mask.rows_digits),
    "transfer-compositions": Benchmark(transfer.compositions, transfer.rows_compositions, BOTH),
    "transfer-plain-loop": Benchmark(transfer.against_plain_loop, transfer.rows_plain_loop, CIFAR),
    "deepfool": Benchmark(minimum.deepfool, minimum.rows_deepfool, CIFAR),
    "carlini-wagner": Benchmark(minimum.carlini_wagner, minimum.rows_carlini_wagner, CIFAR),
    "jsma": Benchmark(jsma.against_torchattacks, jsma.rows_against_torchattacks, CIFAR),
    "one-pixel": Benchmark(one_pixel.against_peers, one_pixel.rows, CIFAR),
    "autoattack-undefended": Benchmark(autoattack.undefended, autoattack.rows_undefended, CIFAR),
    "autoattack-trained": Benchmark(autoattack.trained, autoattack.rows_trained, CIFAR),
    "quality": Benchmark(quality.on_cifar10, quality.rows, CIFAR),
    "quality-mnist": Benchmark(quality.on_mnist, quality.rows, ("MNIST",)),
    "quality-mnist-dense": Benchmark(quality.dense_on_mnist, quality.rows, ("MNIST",)),
    "small-batches": Benchmark(small_batches.against_peers, small_batches.rows, CIFAR),
    "beside": Benchmark(beside.measure, beside.rows),
    "st-adv": Benchmark(choices.st_adv, choices.rows_st_adv, (*CIFAR, "MNIST")),
    "universal": Benchmark(choices.universal, choices.rows_universal, (*CIFAR, "MNIST")),
    "photographed": Benchmark(choices.photographed, choices.rows_photographed, CIFAR),
    "guard": Benchmark(guard.measure, guard.rows, CIFAR),
    "integrated-gradients": Benchmark(integrated_gradients.measure, integrated_gradients.rows, IMAGENET),
    "occlusion": Benchmark(occlusion.against_bare_passes, occlusion.rows, IMAGENET),
    "ml-loo": Benchmark(ml_loo.against_bare_passes, ml_loo.rows, CIFAR),
    "rts": Benchmark(rts.forwards, rts.rows, BOTH),
    "explanation-measures": Benchmark(explanation_measures.measure, explanation_measures.rows, IMAGENET),
    "lime": Benchmark(lime_images.against_package, lime_images.rows, BOTH),
    "mask": Benchmark(mask.batched, mask.rows, IMAGENET),
    "memory": Benchmark(memory.attacks, memory.rows, CIFAR),
    "score-cam": Benchmark(class_activation.score_cam_of_one_image, class_activation.rows_score_cam, IMAGENET),
    "grad-cam": Benchmark(class_activation.grad_cam_of_a_batch, class_activation.rows_grad_cam, IMAGENET),
    "lrp-deep-lift": Benchmark(propagation.propagated, propagation.rows, ("MNIST",)),
    "full-grad": Benchmark(propagation.weighed, propagation.rows, IMAGENET),
    "certificates": Benchmark(certificates.on_mnist, certificates.rows, ("MNIST",)),
    "smoothing": Benchmark(smoothing.certify, smoothing.rows, CIFAR),
    "deep-validation": Benchmark(deep_validation.measure, deep_validation.rows, ("MNIST",)),
    "training": Benchmark(training.measure, training.rows, CIFAR),
    "training-loop": Benchmark(training_loop.measure, training_loop.rows),
    "scale": Benchmark(scale.measure, scale.rows, CIFAR),
    "startup": Benchmark(startup.seconds, startup.rows),
}


def environment() -> dict[str, Any]:
    """Return the software and the processor of the measurement."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "underfire": underfire.__version__,
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "processor": processor,
        "threads": torch.get_num_threads(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _images(document: dict[str, Any]) -> str:
    """Return the image sets of a measurement for the table, without their fingerprints."""
    return ", ".join(f"{name}, {what.split(', sha256')[0]}" for name, what in document["images"].items())


def write_table() -> None:
    """Write `docs/benchmarks.md` from the files in `benchmarks/results`."""
    documents = {
        name: json.loads((RESULTS / f"{name}.json").read_text())
        for name in MEASURED
        if (RESULTS / f"{name}.json").exists()
    }
    results = {name: document["results"] for name, document in documents.items()}
    table = []
    for name, result in results.items():
        rows = MEASURED[name].rows(result)
        said = verdicts(rows, documents[name]["environment"]["threads"])
        table += [(*row, word, _images(documents[name])) for row, word in zip(rows, said, strict=True)]
    missed = sum(word == MISSED for *_, word, _ in table)
    judged = sum(bool(word) for *_, word, _ in table)
    lines = [
        "# Benchmarks",
        "",
        "The contestants of a benchmark take turns in one process. A ratio is computed in every round; the table shows",
        "its median (smallest to largest). A forward+backward unit is one forward and one backward pass of the whole",
        "batch with frozen weights. A peer is another library. A benchmark with one thread measures processor time.",
        "",
        f"Of {judged} rows with a target that can be compared, {judged - missed} reach it and {missed} miss it.",
        "A row reaches its target if its median does.",
        "",
        "| measurement | value | target | reached | images |",
        "| --- | --- | --- | --- | --- |",
        *("| " + " | ".join(row) + " |" for row in table),
        "",
    ]
    if any("JPEG copies" in images for *_, images in table):
        lines += [
            "Rows with JPEG copies were measured on copies of CIFAR-10 that had lost detail: ResNet-20 classifies",
            "81 % of them correctly, and 91.73 % of the lossless images. These rows will be measured again.",
            "",
        ]
    if "adv2-derivative" in results:
        lines += [
            "A gradient map of a ReLU network has a derivative of zero almost everywhere. ADV² takes a finite",
            "difference of gradients by default, the cheapest. As many steps along the derivative of smooth and wide",
            'steps in place of ReLU\'s (`double_backward="smooth"`) take away several times as much map loss on',
            "photographs, and about as much on digits. `exact` is the paper's smoothing of ReLU, with tau 1e-4. The",
            "map loss is that of the unmodified network.",
            "",
        ]
    lines += ["Made by `make bench`, on:", ""]
    for machine in sorted({json.dumps(document["environment"], sort_keys=True) for document in documents.values()}):
        names = [name for name, d in documents.items() if json.dumps(d["environment"], sort_keys=True) == machine]
        lines += ["```json", machine, "```", "", f"({', '.join(names)})", ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")


def main(names: list[str]) -> None:
    """Measure the named benchmarks, or all, and write the table."""
    unknown = [name for name in names if name not in MEASURED]
    if unknown:
        sys.exit(f"unknown benchmark {unknown[0]!r}; choices: {', '.join(MEASURED)}")
    RESULTS.mkdir(exist_ok=True)
    for name in names or MEASURED:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        document = {
            "environment": environment(),
            "images": describe(MEASURED[name].images),
            "results": MEASURED[name].measure(),
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    write_table()
    print(TABLE.read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
