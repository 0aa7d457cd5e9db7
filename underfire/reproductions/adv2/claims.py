"""Compare every claim of the paper on ADV² and of its talk with what the experiments measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underfire.errors import DataError
from underfire.reproductions.adv2.table import SOURCE
from underfire.reproductions.registry import Outcome, Setting

Results = Mapping[str, Any]
Verdict = tuple[bool, str]  # whether the claim holds, and the figures that say so


@dataclass(frozen=True)
class Claim:
    """A claim, what the paper has for it, and how the result of an experiment decides it.

    Attributes:
        name: where it is stated.
        text: the claim.
        published: the paper's figures.
        experiments: the experiments that measure it; those that have a result are used.
        judge: returns whether one experiment's results support the claim, and the figures.
    """

    name: str
    text: str
    published: str
    experiments: tuple[str, ...]
    judge: Callable[[Results], Verdict]


_MAIN = ("adv2-imagenet", "adv2-cifar10", "adv2-digits")


def run(setting: Setting) -> Outcome:
    """Read the results of the experiments in the output folder; nothing is attacked here."""
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    for claim in CLAIMS:
        read = {name: _read(setting.out, name) for name in claim.experiments}
        found = {name: _judge(claim, name, known) for name, known in read.items() if known is not None}
        verdict = _verdict([holds for holds, _ in found.values()])
        shown = "; ".join(f"{name}: {figures}" for name, (_, figures) in found.items())
        rows.append([claim.name, claim.text, claim.published, shown, verdict])
        results[claim.name] = {"verdict": verdict, "experiments": found}
    return Outcome(
        title="The claims on ADV²: the paper's figures and ours",
        source=f"{SOURCE}, and the authors' talk",
        spec={"experiments": sorted({name for claim in CLAIMS for name in claim.experiments})},
        columns=("claim", "what it says", "paper", "ours", "verdict"),
        rows=rows,
        notes=[_HOW],
        results=results,
    )


_HOW = """Each figure is from the experiment that it names, whose page has the numbers of images and the intervals. A
claim holds in part if it holds in some of them. The paper's networks are a ResNet-50 and a DenseNet-169."""


def _judge(claim: Claim, name: str, results: Results) -> Verdict:
    """Return what the results of one experiment say about a claim.

    Raises:
        DataError: the file is of another version, so that figures are missing.
    """
    try:
        return claim.judge(results)
    except (KeyError, TypeError, AttributeError, ValueError, StopIteration, ZeroDivisionError) as error:
        fault = f"{name}.json lacks the figures for {claim.name}"
        raise DataError(f"{fault} ({type(error).__name__}: {error}); run {name} again") from error


def _verdict(held: Sequence[bool]) -> str:
    """Return what the experiments together say about a claim."""
    if not held:
        return "not measured"
    return "holds" if all(held) else "holds in part" if any(held) else "does not hold"


def _read(folder: Path, name: str) -> Results | None:
    """Return the results of an experiment in the output folder; None without any, or if they are of a quick run."""
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    found: Results = document["results"]
    return None if document.get("scale", "quick") == "quick" else found


# --- how the results of an experiment decide a claim ---


def _attacks(results: Results) -> Iterator[tuple[str, str, Results, Results]]:
    """Yield the network, the interpreter, the outcome of ADV² on it, and the shift of its maps."""
    for network, found in results.items():
        for name in found:
            if name.startswith("ADV² on "):
                label = name.removeprefix("ADV² on ")
                yield network, label, found[name], found[label]


def _deceives(results: Results) -> Verdict:
    success = [outcome["success"]["value"] for _, _, outcome, _ in _attacks(results)]
    confidence = [outcome["confidence"]["value"] for _, _, outcome, _ in _attacks(results)]
    spans = (f"{name} {min(v):.3f} to {max(v):.3f}" for name, v in (("success", success), ("confidence", confidence)))
    return min(success) >= 0.95 and min(confidence) >= 0.95, ", ".join(spans)


def _misleads(results: Results) -> Verdict:
    ratios, overlaps = [], []
    for _, label, _, shift in _attacks(results):
        attack = f"ADV² on {label}"
        plain = next(name for name in shift["map_l1"] if name not in (attack, "difference"))
        ratios.append((shift["map_l1"][attack]["value"] / shift["map_l1"][plain]["value"], label))
        overlaps.append((shift["map_iou"][attack]["value"], label))
    worst, least = max(ratios), min(overlaps)
    figures = f"map L1 ≤ {worst[0]:.2f} of the plain attack's ({worst[1]}), IoU ≥ {least[0]:.2f} ({least[1]})"
    return worst[0] <= 0.4 and least[0] >= 0.5, figures


def _as_detectable(results: Results) -> Verdict:
    pairs = {
        name: [_detection(results, attack, name) for attack in ("PGD", "ADV² on CAM")]
        for name in ("median_2", "median_3")
    }
    figures = (f"{name} {plain:.3f} of PGD, {basic:.3f} of ADV²" for name, (plain, basic) in pairs.items())
    return all(abs(plain - basic) < 0.02 for plain, basic in pairs.values()), ", ".join(figures)


def _evades(results: Results) -> Verdict:
    rates = {attack: _mean_detection(results, attack) for attack in next(iter(results.values()))}
    adaptive = {attack: rate for attack, rate in rates.items() if "adaptive" in attack}
    named = ", ".join(f"{rate:.3f} {attack.split(', ', 1)[1]}" for attack, rate in adaptive.items())
    figures = f"mean detection rate {rates['ADV² on CAM']:.3f}, {named}"
    return min(adaptive.values()) < 0.5 * rates["ADV² on CAM"], figures


def _detection(results: Results, attack: str, squeezer: str) -> float:
    rates = [found[attack]["detection"][squeezer]["value"] for found in results.values()]
    return float(sum(rates) / len(rates))


def _mean_detection(results: Results, attack: str) -> float:
    rates = [rate["value"] for found in results.values() for rate in found[attack]["detection"].values()]
    return float(sum(rates) / len(rates))


def _towards(results: Results) -> Verdict:
    every = [figures for found in results.values() for figures in found.values()]
    success = min(figures["success"]["value"] for figures in every)
    nearer = [figures["l1"]["ADV²"]["value"] / figures["l1"]["PGD"]["value"] for figures in every]
    figures = f"success ≥ {success:.3f}, L1 to the target {min(nearer):.2f} to {max(nearer):.2f} of PGD's"
    return success >= 0.95 and max(nearer) < 1, figures


def _transfers_little(results: Results) -> Verdict:
    ratios: dict[bool, list[float]] = {True: [], False: []}  # whether the interpreter is the attacked one
    for found in results.values():
        for attack, row in found.items():
            for target, cell in row.items():
                if attack != "PGD":
                    ratio = cell["map_l1"]["value"] / found["PGD"][target]["map_l1"]["value"]
                    ratios[attack == f"ADV² on {target}"].append(ratio)
    own, other = (sum(ratios[same]) / len(ratios[same]) for same in (True, False))
    return other > 2 * own, f"map L1 {own:.2f} of PGD's on the attacked interpreter, {other:.2f} on others"


def _grad_resists(results: Results) -> Verdict:
    overlap: dict[str, dict[str, float]] = {}
    for network, label, _, shift in _attacks(results):
        overlap.setdefault(network, {})[label] = shift["map_iou"][f"ADV² on {label}"]["value"]
    least = [min(found, key=lambda label, found=found: found[label]) for found in overlap.values()]  # type: ignore[misc]
    figures = ", ".join(f"lowest IoU on {label} of {network}" for network, label in zip(overlap, least, strict=True))
    return all(label == "GRAD" for label in least), figures


def _distilled(results: Results) -> Verdict:
    benign, before, after = (
        results[name]["l1"]["value"] for name in ("benign, RTS and RTS^A", "ADV², RTS", "ADV², RTS^A")
    )
    return (
        after > 2 * before,
        f"map L1 under ADV² {before:.3f} of RTS, {after:.3f} of RTS^A; between the two {benign:.3f}",
    )


def _gap_is_open(results: Results) -> Verdict:
    gaps = [
        gap["value"]["value"] for name, found in results.items() if name.endswith("_normal") for gap in found.values()
    ]
    return min(gaps) > 0.5, f"gap {min(gaps):.2f} to {max(gaps):.2f} of networks trained as usual"


def _both(results: Results) -> Verdict:
    (deceives, first), (misleads, second) = _deceives(results), _misleads(results)
    return deceives and misleads, f"{first}; {second}"


CLAIMS = (
    Claim(
        "Observation 1",
        "ADV² deceives the classifier as well as PGD does.",
        "success 96 to 100 %, confidence 0.98 to 1.0",
        _MAIN,
        _deceives,
    ),
    Claim(
        "Observation 2",
        "The maps of ADV² inputs are highly similar to the benign ones.",
        "map L1 more than 60 % below PGD's, IoU above 0.5, for every interpreter",
        _MAIN,
        _misleads,
    ),
    Claim(
        "Observation 3",
        "Feature squeezing detects basic ADV² and PGD alike.",
        "differences below 2 % for local smoothing",
        ("adv2-squeezing",),
        _as_detectable,
    ),
    Claim(
        "Observation 4",
        "An adaptive ADV² evades feature squeezing.",
        "the detection rate drops significantly",
        ("adv2-squeezing",),
        _evades,
    ),
    Claim(
        "Observation 5",
        "ADV² can be built on other attacks, such as StAdv.",
        "success and maps as with PGD",
        ("adv2-stadv",),
        _deceives,
    ),
    Claim(
        "Observation 6",
        "Prediction and explanation can be driven to arbitrary, unrelated targets.",
        "random patches and random classes hardly lower the success",
        ("adv2-random-patch", "adv2-random-class"),
        _towards,
    ),
    Claim(
        "Observation 7",
        "Attacks transfer little between interpreters.",
        "the maps of another interpreter are about as far as under PGD",
        ("adv2-transfer",),
        _transfers_little,
    ),
    Claim(
        "Observation 8, first half",
        "Interpreters see distinct aspects of a network; GRAD, made of the gradient that attacks use, resists most.",
        "the lowest IoU of all interpreters is that of GRAD",
        _MAIN,
        _grad_resists,
    ),
    Claim(
        "Observation 8, second half",
        "ADV² in the training of an interpreter narrows the gap.",
        "map L1 under ADV² 0.01 of RTS, 0.10 of RTS^A; between the two 0.03",
        ("adv2-aid",),
        _distilled,
    ),
    Claim(
        "Finding 1",
        "Interpretability gives limited security: both can be deceived together.",
        "Observations 1 and 2",
        _MAIN,
        _both,
    ),
    Claim(
        "Finding 2",
        "Prediction and interpretation are only partially aligned.",
        "no number; here the gap, 1 for independence",
        ("adv2-robust",),
        _gap_is_open,
    ),
    Claim(
        "Finding 3",
        "Adversarial training of the interpreter may make it robust.",
        "Observation 8, second half",
        ("adv2-aid",),
        _distilled,
    ),
)
