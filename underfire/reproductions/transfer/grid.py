"""A transfer experiment as an audit: its networks, its attacks, and the fooled images that its ledger has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underfire.audit.around_through import AROUND
from underfire.audit.ledger import Ledger
from underfire.catalog import find
from underfire.reproductions.audits import run_audit
from underfire.reproductions.registry import Setting

_FEW = 2  # the largest count of a quick run
_COUNTS = ("steps", "restarts", "queries", "outer_steps")
_SAMPLES = ("samples", "perturbations")

ATTACKS: dict[str, str] = {
    "FGSM": "fgsm",
    "I-FGSM (BIM)": "i_fgsm",
    "MI-FGSM": "mi_fgsm",
    "NI-FGSM": "ni_fgsm",
    "DIM": "dim",
    "TIM": "tim",
    "SIM": "sim",
    "VMI-FGSM": "vmi_fgsm",
    "SI-NI-TI-DIM": "si_ni_ti_dim",
    "TAP": "tap",
    "ATA": "ata",
    "TAP+ATA": "tap_ata",
    "ATTA": "atta",
    "AT-SI-NI-TI-DIM": "at_si_ni_ti_dim",
    "Admix": "admix",
    "SSM": "ssm",
    "SIA": "sia",
    "BSR": "bsr",
    "PGN": "pgn",
    "OPS": "ops",
}
"""The transfer attacks by their names in tables, and their names in the catalogue."""

MODERN = ("Admix", "SSM", "SIA", "BSR", "PGN", "OPS")
"""The strongest of them, which are newer than the seeds' attacks and take many more passes."""

_KERNEL, _PADDED = {"size": 3}, {"rate": 36 / 32}
_OF_32_PIXELS: dict[str, dict[str, Any]] = {
    "TIM": _KERNEL,
    "DIM": _PADDED,
    "SI-NI-TI-DIM": _KERNEL | _PADDED,
    "AT-SI-NI-TI-DIM": _KERNEL | _PADDED,
}
SMALL: dict[str, Any] = {
    label: {"name": name, **_OF_32_PIXELS[label]} if label in _OF_32_PIXELS else name
    for label, name in ATTACKS.items()
    if label not in MODERN
}
"""The seeds' attacks for images of 32 pixels.

The kernel of 15 pixels is for images of 299, so here it has 3. Images are padded to 36 pixels, a side that networks
which halve it twice take, and not to 330/299 of their side, which is 35.
"""

Fooled = NDArray[np.float64]
"""Of every image that counts, the share of the victim's draws that are fooled, `[n]`."""


@dataclass(frozen=True)
class Grid:
    """The networks, attacks and sizes of a transfer experiment.

    Attributes:
        name: the name of its run folder.
        data: the URI of the images. In every text, `{root}` is the folder of real data, `{work}` the work folder, and
            `{scale}` the size of the run.
        sources: the URIs of the networks that attacks are crafted on, or lists of URIs for an ensemble, by label.
        victims: entries of a spec by label; a text is a URI.
        attacks: the attacks, by label: the name in the catalogue, or a mapping with options.
        sizes: the sizes in L∞, as a spec has them.
        images: number of images of a quick, a usual and a full run, all right for every network.
        steps: number of steps of an attack that has steps; a quick run has 2, and no more of anything else.
        samples: largest number of samples over which an attack averages in a usual run; a full one has the published.
        copies: largest number of scaled copies in a usual run, likewise.
        inner: largest number of steps of the images for a step of ATTA's network in a usual run, likewise.
        shard: images that are attacked at once.
        more: further keys of the spec; without a source that is one network, `model` must be among them.
    """

    name: str
    data: str
    sources: Mapping[str, str | list[str]]
    victims: Mapping[str, Any]
    attacks: Mapping[str, Any]
    sizes: Sequence[str]
    images: tuple[int, int, int]
    steps: int = 10
    samples: int = 5
    copies: int = 5
    inner: int = 2
    shard: int = 50
    more: Mapping[str, Any] = field(default_factory=dict)

    def spec(self, setting: Setting) -> dict[str, Any]:
        """Return the audit as a spec."""
        first = self._first
        sources = [
            {"label": label, **({"model": uri} if isinstance(uri, str) else {"ensemble": uri})}
            for label, uri in self.sources.items()
        ]
        victims = [{**({"model": v} if isinstance(v, str) else v), "label": label} for label, v in self.victims.items()]
        spec = {
            "model": first,
            "data": {"uri": self.data},
            "sample": {"n": dict(zip(("quick", "default", "full"), self.images, strict=True))[setting.scale]},
            "attacks": [self._attack(label, given, setting) for label, given in self.attacks.items()],
            "sources": sources,
            "victims": victims,
            "measures": ["map_l1"],
            "seeds": [setting.seed],
            "masking": False,
            "gallery": 0,
            "shard_size": self.shard,
            "batch_size": 50,
            "keep_gb": 20,
            "device": setting.device,
            **self.more,
        }
        spec["sample"]["seed"] = setting.seed
        return placed(spec, setting)

    def _attack(self, label: str, given: Any, setting: Setting) -> dict[str, Any]:
        """Return the entry of an attack, with its sizes and its steps."""
        entry = {"name": given} if isinstance(given, str) else dict(given)
        defaults = {name: option.default for name, option in find("attack", entry["name"]).options.items()}
        if "steps" in defaults:
            entry.setdefault("steps", self.steps)
        limits = {**dict.fromkeys(_SAMPLES, self.samples), "copies": self.copies, "inner_steps": self.inner}
        if setting.quick:
            limits = dict.fromkeys((*limits, *_COUNTS), _FEW)
        for name, most in limits.items() if setting.scale != "full" else ():
            if isinstance(count := entry.get(name, defaults.get(name)), int):
                entry[name] = min(count, most)
        return {**entry, "label": label, "eps": list(self.sizes)}

    @property
    def _first(self) -> str:
        """The URI of the first source that is one network; empty if there is none."""
        return next((uri for uri in self.sources.values() if isinstance(uri, str)), "")

    def only(self, *, sources: Sequence[str] = (), attacks: Sequence[str] = ()) -> Grid:
        """Return the grid with some of its sources or attacks; none keeps all.

        Its audit has the cells of the whole, so that both find each other's results in the work folder. For this it
        keeps the model, and its victims must be those of the whole: they determine the images.
        """
        return replace(
            self,
            sources={label: self.sources[label] for label in sources or self.sources},
            attacks={label: self.attacks[label] for label in attacks or self.attacks},
            more={"model": self._first, **self.more},
        )

    def at(self, setting: Setting) -> Grid:
        """Return the grid of a run: a quick one has two sources and three victims."""
        if not setting.quick:
            return self
        sources, victims = dict(list(self.sources.items())[:2]), dict(list(self.victims.items())[:3])
        return replace(self, sources=sources, victims=victims)

    def run(self, setting: Setting) -> Ledger:
        """Run the audit, or what is left of it, and return its ledger."""
        return run_audit(self.spec(setting), self.name, setting)


def placed(value: Any, setting: Setting) -> Any:
    """Return plain values with the folders of a run in the place of their names in texts, such as `{root}`."""
    if isinstance(value, dict):
        return {key: placed(part, setting) for key, part in value.items()}
    if isinstance(value, list):
        return [placed(part, setting) for part in value]
    places = {"root": setting.data_root, "work": setting.work, "scale": setting.scale}
    for name, place in places.items() if isinstance(value, str) else ():
        value = value.replace(f"{{{name}}}", str(place))
    return value


def fooled(ledger: Ledger, attack: str, eps: float | None = None) -> dict[tuple[str, str, str], Fooled]:
    """Return the fooled images by source, victim and way, of one attack at one size; None is its largest size."""
    label = attack.replace("'", "''")
    size = f"(SELECT max(eps) FROM transfer WHERE label = '{label}')" if eps is None else repr(eps)
    query = f"""
    SELECT source, victim, way, list(fooled ORDER BY id) AS fooled FROM transfer
    WHERE label = '{label}' AND counted AND abs(eps - {size}) < 1e-9 GROUP BY source, victim, way
    """
    return {(r["source"], r["victim"], r["way"]): np.array(r["fooled"], dtype=float) for r in ledger.sql(query)}


def mean_fooled(found: Mapping[tuple[str, str, str], Fooled], source: str = "", victims: Sequence[str] = ()) -> Fooled:
    """Return the mean over pairs of source and victim, image by image; white-box pairs are left out.

    Args:
        found: what `fooled` returns.
        source: only the attacks on this source; empty takes all.
        victims: only these victims; empty takes all.

    Raises:
        ValueError: there is no such pair.
    """
    chosen = [
        row
        for (s, v, way), row in found.items()
        if way in AROUND and source in ("", s) and (not victims or v in victims)
    ]
    if not chosen:
        raise ValueError("no attack was shown to another network")
    return np.mean(chosen, axis=0)


def means_of(grid: Grid, ledger: Ledger, eps: float | None = None, victims: Sequence[str] = ()) -> dict[str, Fooled]:
    """Return `mean_fooled` of every attack of a grid that could be run, by its label."""
    found = {label: fooled(ledger, label, eps) for label in grid.attacks}
    return {label: mean_fooled(one, victims=victims) for label, one in found.items() if one}
