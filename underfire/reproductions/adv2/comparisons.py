"""Compare the results of the experiments on ADV² with the claims: each comparison holds or not, with its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from underfire.audit.map_shifts import PLAUSIBLE_IOU
from underfire.records import Interval
from underfire.reproductions.adv2.table import GAIN, show

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """One comparison that a claim rests on.

    Attributes:
        what: what is compared, such as `"IoU"`; comparisons of one kind are shown by the least favourable.
        where: the network and the interpreter or attack.
        figures: the measured figures with their intervals.
        room: how far the figure may still get worse before the comparison fails; it fails below 0, and where it is nan.
    """

    what: str
    where: str
    figures: str
    room: float

    @property
    def holds(self) -> bool:
        """Return whether the claim holds here."""
        return self.room >= 0


Compare = Callable[[Results], Iterator[Comparison]]


def told(figure: Mapping[str, Any]) -> str:
    """Return a figure of a results file with its interval."""
    return show(Interval(**figure))


def _attacks(results: Results) -> Iterator[tuple[str, str, str, Results, Results, Results]]:
    """Yield where, the plain attack, ADV² on an interpreter, the outcomes of both, and the shift of the maps."""
    for network, found in results.items():
        for attack in found:
            if attack.startswith("ADV² on "):
                label = attack.removeprefix("ADV² on ")
                plain = next(name for name in found[label]["map_l1"] if name not in (attack, "difference"))
                yield f"{label}, {network}", plain, attack, found[plain], found[attack], found[label]


def deceives(results: Results) -> Iterator[Comparison]:
    """Compare the success and the confidence of ADV² with 0.95."""
    for where, _, _, _, outcome, _ in _attacks(results):
        for what in ("success", "confidence"):
            yield Comparison(what, where, told(outcome[what]), outcome[what]["value"] - 0.95)


def misleads(results: Results) -> Iterator[Comparison]:
    """Compare the maps with those after the plain attack: L1 at most 0.4 times, IoU at least 1.4 times, and 0.5."""
    for where, plain, attack, _, _, shift in _attacks(results):
        yield _ratio(where, plain, attack, shift["map_l1"], 0.4)
        before, after = (shift["map_iou"][name] for name in (plain, attack))
        yield Comparison("IoU", where, told(after), after["value"] - PLAUSIBLE_IOU)
        figures = f"{told(after)}, {told(before)} under {plain}"
        yield Comparison(f"IoU over that of {plain}", where, figures, after["value"] - GAIN * before["value"])


def _ratio(where: str, plain: str, attack: str, l1: Results, most: float) -> Comparison:
    """Compare the map L1 of an attack with `most` times that of the plain one; it must also be lower significantly."""
    after, before, difference = l1[attack], l1[plain], l1["difference"]
    ratio = after["value"] / before["value"]
    room = min(most - ratio, -difference["high"])
    return Comparison("map L1", where, f"{ratio:.2f} of that under {plain}, difference {told(difference)}", room)


def deceives_and_misleads(results: Results) -> Iterator[Comparison]:
    """Compare success, confidence and maps."""
    yield from deceives(results)
    yield from misleads(results)


def as_on_pixels(results: Results) -> Iterator[Comparison]:
    """Compare ADV² on another attack with that attack alone: as successful, and with nearer maps."""
    for where, plain, attack, alone, outcome, shift in _attacks(results):
        success, usual = outcome["success"], alone["success"]
        figures = f"{told(success)}, {told(usual)} of {plain}"
        yield Comparison("success", where, figures, success["value"] - usual["value"] + 0.05)
        yield _ratio(where, plain, attack, shift["map_l1"], 1.0)


def as_detectable(results: Results) -> Iterator[Comparison]:
    """Compare the detection rates of ADV² and PGD under local smoothing."""
    for network, found in results.items():
        for squeezer in ("median_2", "median_3"):
            plain, basic = (found[attack]["detection"][squeezer] for attack in ("PGD", "ADV² on CAM"))
            figures = f"{told(basic)}, {told(plain)} of PGD"
            room = 0.02 - abs(plain["value"] - basic["value"])
            yield Comparison("detection rate", f"{squeezer}, {network}", figures, room)


def evades(results: Results) -> Iterator[Comparison]:
    """Compare adaptive forms with the basic one: half as often detected, still successful, and with maps as near."""
    basic = "ADV² on CAM"
    for network, found in results.items():
        usual = _mean_detection(found[basic])
        for attack in (name for name in found if name.startswith(f"{basic}, ")):
            where, rate = f"{attack.removeprefix(f'{basic}, ')}, {network}", _mean_detection(found[attack])
            figures = f"{rate:.3f} of basic ADV²'s {usual:.3f}, mean of {len(found[attack]['detection'])} detectors"
            yield Comparison("detection rate", where, figures, 0.5 * usual - rate)
            success = found[attack]["success"]
            yield Comparison("success", where, told(success), success["value"] - 0.95)
            yield _ratio(where, "PGD", attack, found[attack]["maps"]["map_l1"], 0.4)


def _mean_detection(found: Results) -> float:
    rates = [rate["value"] for rate in found["detection"].values()]
    return float(sum(rates) / len(rates))


def reaches_targets(results: Results) -> Iterator[Comparison]:
    """Compare success with 0.95, and the distance to the target map with that of PGD, interval against interval."""
    for network, found in results.items():
        for label, figures in found.items():
            where, success, l1 = f"{label}, {network}", figures["success"], figures["l1"]
            yield Comparison("success", where, told(success), success["value"] - 0.95)
            distances = f"{told(l1['ADV²'])}, {told(l1['PGD'])} of PGD"
            yield Comparison("L1 to the target", where, distances, l1["PGD"]["low"] - l1["ADV²"]["high"])


def transfers_little(results: Results) -> Iterator[Comparison]:
    """Compare the maps of other interpreters: nearer to the distance under PGD than to that of the attacked one.

    Grad-CAM is left out, because it is CAM, but for its scale, on networks that end in global average pooling.
    """
    for network, found in results.items():
        labels = [label for label in found["PGD"] if label != "Grad-CAM"]
        for source in labels:
            for target in labels:
                if source == target:
                    continue
                own, seen, plain = (
                    found[attack][target]["map_l1"] for attack in (f"ADV² on {target}", f"ADV² on {source}", "PGD")
                )
                figures = f"{told(seen)}, {plain['value']:.3f} under PGD, {own['value']:.3f} if attacked"
                room = seen["value"] - (own["value"] + plain["value"]) / 2
                yield Comparison("map L1", f"{source} seen by {target}, {network}", figures, room)


def grad_resists(results: Results) -> Iterator[Comparison]:
    """Compare the IoU of GRAD with the lowest of the other interpreters, where both were measured."""
    overlap: dict[str, dict[str, Results]] = {}
    for where, _, attack, _, _, shift in _attacks(results):
        label, network = where.split(", ", 1)
        overlap.setdefault(network, {})[label] = shift["map_iou"][attack]
    for network, found in overlap.items():
        others = {label: iou for label, iou in found.items() if label != "GRAD"}
        if not others or "GRAD" not in found:
            continue
        least = min(others, key=lambda label, others=others: others[label]["value"])  # type: ignore[misc]
        figures = f"{told(found['GRAD'])}, {told(others[least])} of {least}"
        yield Comparison("IoU of GRAD", network, figures, others[least]["value"] - found["GRAD"]["value"])


def distilled(results: Results) -> Iterator[Comparison]:
    """Compare RTS^A with RTS: maps farther under ADV² and under noise, and as before on clean images."""
    benign, before, after = (results[name]["l1"] for name in ("benign, RTS and RTS^A", "ADV², RTS", "ADV², RTS^A"))
    room = min(after["value"] - 2 * before["value"], after["low"] - before["high"])
    yield Comparison("map L1 under ADV²", "RTS^A", f"{told(after)}, {told(before)} of RTS", room)
    yield Comparison("map L1 on clean images", "RTS and RTS^A", told(benign), 0.05 - benign["value"])
    for name, found in results.items():
        if "difference" in found:
            where, difference = name.removesuffix(", RTS^A"), found["difference"]
            yield Comparison("map L1 under noise, RTS^A less RTS", where, told(difference), difference["low"])


def gap_is_open(results: Results) -> Iterator[Comparison]:
    """Compare the gap of networks that are trained as usual with 0.5."""
    for name, found in results.items():
        if name.endswith("_normal"):
            for label, gap in found.items():
                yield Comparison("gap", f"{label}, {name}", told(gap["value"]), gap["value"]["value"] - 0.5)


def stays_on_lesion(results: Results) -> Iterator[Comparison]:
    """Compare success and maps of the medical case, and how far the mass on the lesion moves."""
    yield from deceives_and_misleads({"skin lesions": results})
    for where, plain, attack, _, _, shift in _attacks({"skin lesions": results}):
        mass = shift["mass_inside"]
        clean, under, aimed = (mass[name] for name in ("clean", plain, attack))
        figures = f"{told(aimed)}, {told(clean)} on clean images, {told(under)} under {plain}"
        room = abs(under["value"] - clean["value"]) - abs(aimed["value"] - clean["value"])
        yield Comparison("mass on the lesion", where, figures, room)


def is_noticed(results: Results) -> Iterator[Comparison]:
    """Compare how often the ensemble detects attacks with its false alarms, interval against rate."""
    for network, found in results.items():
        for attack, figures in found.items():
            detection = figures["detection"]
            room = detection["rate"]["low"] - detection["stated"]
            yield Comparison("detection rate", f"{attack}, {network}", told(detection["rate"]), room)
