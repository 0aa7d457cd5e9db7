"""Measure transfer between DNN, LR, SVM, DT and kNN on MNIST, and train substitutes of each (Papernot et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from underfire import data
from underfire.ascent.objectives import logit
from underfire.attacks import decision_tree, fgsm, fgvm
from underfire.attacks.substitute.surrogates import built, fit, train_substitute
from underfire.measures.statistics import bootstrap_mean, rate
from underfire.model import Classifier, Oracle
from underfire.models import as_oracle, from_sklearn
from underfire.records import Batch, Interval
from underfire.reproductions.heatmaps import heatmaps
from underfire.reproductions.registry import Outcome, Setting, table

TECHNIQUES = ("DNN", "LR", "SVM", "DT", "kNN")
SUBSETS, SHAPE = "ABCDE", (1, 28, 28)
EPS, SVM_EPS = 0.3, 1.5
#: Options for training substitutes: after how many steps the sign of the augmentation changes, and shared options.
PERIODS = {"dnn": 3, "lr": 1}
STEALING: dict[str, Any] = {"step_size": 0.1, "doublings": 3, "reservoir": 400, "epochs": 5}

#: Published accuracies in per cent, by training subset.
ACCURACIES = {
    "DNN": (97.72, 97.91, 97.91, 97.6, 97.62),
    "LR": (82.57, 83.45, 84.07, 83.16, 82.98),
    "SVM": (88.9, 89.07, 89.29, 88.84, 88.9),
    "DT": (80.64, 81.57, 80.94, 81.78, 81.55),
    "kNN": (94.42, 94.92, 94.83, 94.91, 94.44),
}
#: Transfer rates in per cent: crafted on the row, evaluated on the column (the last is the vote of the ensemble). The
#: source is Fralick, Reproducibility: The Life and Risks of a Model, RSA Conference 2018, which transcribes the figure.
PUBLISHED = {
    "DNN": (38.27, 23.02, 64.32, 79.31, 8.36, 20.72),
    "LR": (6.31, 91.64, 91.43, 87.42, 11.29, 44.14),
    "SVM": (2.51, 35.56, 100.0, 80.03, 5.19, 15.67),
    "DT": (0.82, 12.22, 8.85, 89.29, 3.31, 5.11),
    "kNN": (11.75, 42.89, 82.16, 82.95, 41.65, 31.92),
}
Matrix = dict[str, dict[str, Interval]]


def subsets(root: Path, size: int, seed: int) -> list[Batch]:
    """Return five disjoint training sets of `size` images."""
    source = data.load(f"mnist:{root / 'mnist'}?split=train")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    return [source[rows] for rows in order[: len(SUBSETS) * size].split(size)]


def train(technique: str, batch: Batch, seed: int, epochs: int, device: str) -> tuple[Classifier, Oracle | Classifier]:
    """Train a model; return its differentiable version, which is attacked, and the model itself, which is evaluated."""
    if technique == "DNN":
        generator = torch.Generator(device).manual_seed(seed)
        network = Classifier(built("dnn", batch.x.shape[1:], 10, generator)).to(device)
        fit(network, batch.x.to(device), batch.y.to(device), epochs, generator)
        return network.eval(), network
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    estimator = {
        "LR": partial(LogisticRegression, C=0.1, max_iter=1000, tol=1e-3),
        "SVM": partial(LinearSVC, random_state=seed),
        "DT": partial(DecisionTreeClassifier, random_state=seed),
        "kNN": partial(KNeighborsClassifier, n_neighbors=1),
    }[technique]()
    estimator.fit(batch.x.flatten(1).numpy(), batch.y.numpy())
    return from_sklearn(estimator, SHAPE).to(device), as_oracle(estimator)


#: The attack on each technique, those of the paper.
CRAFT: dict[str, Callable[..., Tensor]] = {
    "DNN": partial(fgsm, eps=EPS),
    "LR": partial(fgsm, eps=EPS),
    "SVM": partial(fgvm, norm="l2", eps=SVM_EPS, objective=logit()),
    "DT": partial(decision_tree, leaf="structure"),
    "kNN": partial(fgsm, eps=EPS),
}


def craft(technique: str, model: nn.Module, batch: Batch) -> Tensor:
    """Attack the images in batches of 250 (kNN compares every image with every training point)."""
    parts = zip(batch.x.split(250), batch.y.split(250), strict=True)
    return torch.cat([CRAFT[technique](model, x, y) for x, y in parts])


def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Return the classes `[B]` that a model or an oracle predicts."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(1000)])


def run(setting: Setting) -> Outcome:
    """Train 25 models, evaluate each on the samples crafted on every other, and train substitutes of five of them."""
    root, seed, device, quick = setting.root, setting.seed, setting.device, setting.quick
    size, n, epochs, steps = (200, 40, 2, 1) if quick else (10_000, 1000, 8, 9)
    total, done = 3 * len(TECHNIQUES), 0

    def step(what: str) -> None:
        nonlocal done
        setting.progress(done, total, what)
        done += 1

    training = subsets(root, size, seed)
    source = data.load(f"mnist:{root / 'mnist'}?split=test")
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    batch, seeds = source[order[:n]].to(device), source[order[n : n + 100]].to(device)
    everything = batch if quick else source[torch.arange(len(source))].to(device)  # for accuracies, as in the paper
    soft: dict[str, list[Classifier]] = {}
    real: dict[str, list[Oracle | Classifier]] = {}
    accuracies: dict[str, list[Interval]] = {}
    for technique in TECHNIQUES:
        step(f"training five of {technique}")
        pairs = [train(technique, part, seed + number, epochs, device) for number, part in enumerate(training)]
        soft[technique], real[technique] = [list(models) for models in zip(*pairs, strict=True)]
        accuracies[technique] = [rate(predict(model, everything.x) == everything.y) for model in real[technique]]
    clean = {t: torch.stack([predict(model, batch.x) for model in real[t]]) for t in TECHNIQUES}
    answers: dict[tuple[str, str], Tensor] = {}  # [source subset, target subset, image]
    for technique in TECHNIQUES:
        step(f"crafting on {technique}")
        crafted = [craft(technique, model, batch) for model in soft[technique]]
        for target in TECHNIQUES:
            predictions = [torch.stack([predict(model, x) for model in real[target]]) for x in crafted]
            answers[technique, target] = torch.stack(predictions)
    intra = {t: _intra(answers[t, t], clean[t], batch.y) for t in TECHNIQUES}
    same, other = _cross(answers, clean, batch.y, same=True), _cross(answers, clean, batch.y, same=False)
    stolen = []
    for technique in TECHNIQUES:
        step(f"substitutes of {technique}")
        for architecture in PERIODS:
            stolen.append(_steal(technique, real[technique][0], architecture, steps, seeds.x, batch, seed))
    setting.progress(total, total, "done")
    cross_rates = [[same[s][t].value for t in (*TECHNIQUES, "Ens.")] for s in TECHNIQUES]
    intra_rates = {t: [[cell.value for cell in row] for row in intra[t]] for t in TECHNIQUES}
    pictures = {
        "intra": heatmaps(intra_rates, list(SUBSETS), list(SUBSETS)),
        "cross": heatmaps(
            {"ours": cross_rates, "paper": [[v / 100 for v in row] for row in PUBLISHED.values()]},
            list(TECHNIQUES),
            [*TECHNIQUES, "Ens."],
        ),
    }
    return Outcome(
        title="Transfer between machine learning techniques on MNIST",
        source="Papernot, McDaniel and Goodfellow, Transferability in Machine Learning: from Phenomena to Black-Box "
        "Attacks using Adversarial Samples, 2016",
        spec={
            "data": f"mnist: five disjoint subsets of {size} training images; samples crafted from {n} test images, "
            f"accuracies on {len(everything)}; seed {seed}",
            "DNN": f"two convolutions, two linear layers (surrogates.built('dnn')), Adam, {epochs} epochs",
            "LR": "sklearn LogisticRegression(C=0.1)",
            "SVM": "sklearn LinearSVC()",
            "DT": "sklearn DecisionTreeClassifier()",
            "kNN": "sklearn KNeighborsClassifier(n_neighbors=1), crafted on with SoftNeighbours(temperature=1)",
            "crafting": {
                "DNN, LR, kNN": f"fgsm, eps {EPS}",
                "SVM": f"fgvm, l2, eps {SVM_EPS}, objective logit",
                "DT": "decision_tree, leaf='structure'",
            },
            "substitutes": {
                "seeds": len(seeds),
                "steps": steps,
                "period": PERIODS,
                **STEALING,
                "attack": f"fgsm, eps {EPS}",
            },
        },
        columns=("crafted on", *(f"evaluated on {t}" for t in (*TECHNIQUES, "Ens."))),
        rows=[
            [s, *(f"{_percent(same[s][t])} ({p:.1f})" for t, p in zip(same[s], PUBLISHED[s], strict=True))]
            for s in TECHNIQUES
        ],
        notes=_notes(accuracies, intra, same, other, stolen, n),
        results={
            "accuracies": accuracies,
            "intra": intra,
            "cross": same,
            "cross, other subsets": other,
            "published": {"accuracies": ACCURACIES, "cross": PUBLISHED},
            "substitutes": stolen,
        },
        pictures=pictures,
    )


def _intra(answers: Tensor, clean: Tensor, y: Tensor) -> list[list[Interval]]:
    """Return for every pair of subsets the success rate on the images that the target classifies correctly.

    The target predicts `answers` `[source, target, image]` for samples, `clean` `[target, image]` for clean images.
    """
    return [[rate(adv[own == y] != y[own == y]) for adv, own in zip(row, clean, strict=True)] for row in answers]


def _vote(predictions: list[Tensor]) -> Tensor:
    return torch.stack(predictions).mode(0).values


def _cross(answers: dict[tuple[str, str], Tensor], clean: dict[str, Tensor], y: Tensor, *, same: bool) -> Matrix:
    """Return for every pair of techniques the mean over images of the share of models that the sample fools.

    The share is of the models that classify the clean image correctly. `same` takes pairs trained on the same subset.
    """
    right = {**clean, "Ens.": _vote(list(clean.values()))}
    chosen = torch.eye(len(SUBSETS), dtype=torch.bool)
    chosen = (chosen if same else ~chosen).to(y.device)
    found: Matrix = {}
    for s in TECHNIQUES:
        after = {t: answers[s, t] for t in TECHNIQUES}
        after["Ens."] = _vote(list(after.values()))
        found[s] = {}
        for t, predictions in after.items():
            counted = (right[t] == y)[None] & chosen[:, :, None]
            fooled = (counted & (predictions != y)).sum((0, 1)) / counted.sum((0, 1))  # nan where no model was right
            found[s][t] = bootstrap_mean(fooled)
    return found


def _steal(
    technique: str, oracle: nn.Module, architecture: str, steps: int, seeds: Tensor, batch: Batch, seed: int
) -> dict[str, Any]:
    """Train a substitute of an oracle, and return how well it imitates the oracle and how far its samples transfer."""
    counted = Oracle(lambda x: predict(oracle, x), 10)
    generator = torch.Generator(seeds.device).manual_seed(seed)
    how = {"architecture": architecture, "period": PERIODS[architecture], **STEALING}
    f = train_substitute(counted, seeds, steps=steps, generator=generator, **how)
    before, after = predict(oracle, batch.x), predict(oracle, fgsm(f, batch.x, batch.y, eps=EPS))
    right = before == batch.y
    return {
        "oracle": technique,
        "substitute": architecture,
        "queries": counted.queries,
        "agreement": rate(predict(f, batch.x) == before),
        "misclassified": rate(after[right] != batch.y[right]),
    }


def _percent(value: Interval) -> str:
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def _notes(
    accuracies: dict[str, list[Interval]],
    intra: dict[str, list[list[Interval]]],
    same: Matrix,
    other: Matrix,
    stolen: list[dict[str, Any]],
    n: int,
) -> list[str]:
    subset_heads = [f"subset {s}" for s in SUBSETS]
    accuracy_rows = [
        [t, *(f"{100 * a.value:.2f} ({p:g})" for a, p in zip(accuracies[t], ACCURACIES[t], strict=True))]
        for t in TECHNIQUES
    ]
    notes = [
        _HOW.format(n=n),
        "![The table above as heat maps, ours and the paper's](cross-technique-cross.svg)",
        "## Models trained on other data\n\nSuccess rates if source and target are trained on different subsets.",
        table(("crafted on", *same["DNN"]), [[s, *map(_percent, other[s].values())] for s in TECHNIQUES]),
        "## Accuracies\n\nAccuracy on the test images in per cent; the value of the paper in brackets.",
        table(("technique", *subset_heads), accuracy_rows),
        "## Within a technique\n\nA row names the subset of the model on which the samples were crafted.",
        "![Five heat maps, one for each technique](cross-technique-intra.svg)",
    ]
    for t in TECHNIQUES:
        rows = [[f"{t}, {s}", *map(_percent, row)] for s, row in zip(SUBSETS, intra[t], strict=True)]
        notes.append(table(("crafted on", *(f"evaluated on {s}" for s in SUBSETS)), rows))
    heads = ("oracle", "substitute", "queries", "agreement", "misclassified")
    shown = [
        [f["oracle"], f["substitute"], str(f["queries"]), _percent(f["agreement"]), _percent(f["misclassified"])]
        for f in stolen
    ]
    return [*notes, _STOLEN, table(heads, shown), _WHY]


_HOW = """n = {n} test images. A cell is the success rate in per cent (of the images that a model classifies correctly,
the share whose sample it misclassifies) with its 95 % interval, and in brackets the value of the paper, from a
transcription of its figure. Intervals are Clopper-Pearson within a technique and for substitutes; otherwise
they are from the BCa bootstrap over images, of each image's share among the five models. Source and target are
models of the same subset; on the diagonal they are the same model. "Ens." is the vote of the five techniques."""

_STOLEN = """## Substitutes

The oracles are the models of subset A. Each substitute is trained on test images and their augmentation; FGSM attacks
the substitute, and the oracle is evaluated on the result."""

_WHY = """Samples of images that the target misclassifies anyway are not counted here. They were probably not counted in
the paper either, because there the samples of DT fool fewer networks than clean images do. The layers of the network,
the regularisation of LR and SVM and the step size against the SVM are our choices, so only the order of the techniques
can be compared: as in the paper, DT and LR are the easiest to fool by transfer, kNN and DNN the hardest, and samples of
SVM and DT transfer least. Samples of our DNN, LR and kNN transfer far better than those of the paper, which does not
say enough about its networks and the scale of its images to explain why."""
