"""Feed hostile specs, command lines and model files to the product, and see whether each is answered in one line."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import resource
import signal
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml

from tools.chaos.children import REFUSED, in_child
from underfire.audit.spec import load_spec
from underfire.cli.app import main
from underfire.errors import UnderfireError

SPEC: dict[str, Any] = {
    "model": {"uri": "zoo:cluttered_digits", "mean": 0.5, "std": [0.5]},
    "data": {"uri": "cluttered-digits:test", "n": 8, "seed": 0},
    "attacks": [
        {"name": "pgd", "norm": "linf", "eps": ["2/255", 0.1], "steps": 3, "restarts": 2, "label": "PGD"},
        {"name": "recipe", "objective": "cross_entropy", "views": ["scale_copies(2)"], "move": "momentum", "eps": 0.1},
        {"name": "adv2", "interpreter": {"name": "grad_cam"}, "eps": 0.1, "goal": "random-target"},
    ],
    "interpreters": ["gradient", {"name": "smooth_grad", "samples": 4}],
    "measures": ["map_iou", "insertion"],
    "seeds": [0, 1],
    "gates": [{"measure": "robust_accuracy", "at_least": 0.5, "attack": "PGD", "eps": 0.1}],
    "masking": True,
    "gallery": 4,
    "batch_size": 8,
    "shard_size": 4,
    "keep_gb": 1.0,
    "device": "cpu",
    "executor": "auto",
}
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("inf"), float("nan")),
    *("", " ", "x", "pgd", "8/255", "1/0", "9" * 5000, "\ud800", "a\nb", "../../etc/passwd", "s3://x", "cuda:9", "hpu"),
    *([], [[]], [None], {}, {"name": "pgd"}, {"a": {"b": {"c": 1}}}, ["x"] * 2000, "k" * 100_000),
)
TEXTS = (
    *("&a [*a]", "!!int abc", "!!python/object/apply:os.system [ls]", "2001-99-99", "<<: *x", "? [a]\n: b", "\t", "\0"),
    *(
        "%YAML 9.9\n",
        "---\n---\n",
        "!!binary x",
        "!!set {a}",
        "0x" + "f" * 6000,
        "1_000",
        "=",
        "- - - -",
        "{",
        "'",
        "é",
    ),
)


def specs(draw: Random, count: int) -> dict[str, Any]:
    """Read mutated specs, and count those that are accepted, refused in one line, and answered in another way."""
    return dict(in_child(partial(_specs, draw.randrange(2**32), count), seconds=120 + 0.5 * count).answer)


def _specs(seed: int, count: int) -> dict[str, Any]:
    draw = Random(seed)
    found: dict[str, Any] = {"specs": count, "accepted": 0, "refused": 0, "crashed": [], "long": 0, "slow": 0}
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "audit.yaml")
        for _ in range(count):
            path.write_bytes(mutate(draw))
            start = time.monotonic()
            try:
                load_spec(path)
                found["accepted"] += 1
            except UnderfireError as error:
                found["refused"] += 1
                found["long"] += "\n" in str(error) or len(str(error)) > 2500
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                found["crashed"].append(f"{type(error).__name__}: {error}"[:200])
            found["slow"] += time.monotonic() - start > 20
    return found


def mutate(draw: Random) -> bytes:
    """Return the text of a spec with one to three mutations of its values or of its text."""
    content = copy.deepcopy(SPEC)
    for _ in range(draw.randrange(1, 3)):
        holder: Any = content
        while True:
            keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            key = draw.choice(keys)
            if not holder[key] or not isinstance(holder[key], (dict, list)) or draw.random() < 0.3:
                break
            holder = holder[key]
        if draw.random() < 0.2:
            del holder[key]
        elif draw.random() < 0.2 and isinstance(holder, dict):
            holder[draw.choice(("x", 1, None, f"{key}s", "k" * 1000))] = holder.pop(key)
        else:
            holder[key] = draw.choice(VALUES)
        if not content:
            break
    text = yaml.safe_dump(content).encode("utf-8", "surrogatepass")
    if draw.random() < 0.3:
        place = draw.randrange(len(text))
        text = text[:place] + draw.choice(TEXTS).encode() + text[place + draw.randrange(3) :]
    if draw.random() < 0.1:
        text = bytes(draw.randrange(256) if draw.random() < 0.01 else byte for byte in text)
    return text


BIG = "9" * 5000
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("audit", "/dev/zero"),
    ("audit", "/dev/null"),
    ("audit", "."),
    ("audit", "nowhere.yaml"),
    ("audit", "bomb.yaml"),
    ("audit", "merge.yaml"),
    ("audit", "many.yaml"),
    ("audit", "--seed", "-1"),
    ("audit", "--seed", "1" + "0" * 30),
    ("audit", "--seed", BIG),
    ("audit", "--workers", "1" + "0" * 30),
    ("audit", "--workers", "-1"),
    ("audit", "--device", "hpu"),
    ("audit", "--device", ""),
    ("audit", "--device", "cuda:" + BIG),
    ("audit", "--executor", "ray://"),
    ("audit", "--executor", "\n"),
    ("audit", "--out", "/proc/self/nothing"),
    ("audit", "--out", "nosuch://x"),
    ("audit", "--out", "other"),
    ("audit", "--out", "a" * 300),
    ("audit", "--out", "\0"),
    ("audit", "--fail-under", "x=nan"),
    ("audit", "--fail-under", "robust_accuracy=" + BIG),
    ("report", "nowhere"),
    ("report", "."),
    ("report", "s3://nowhere/run"),
    ("report", "memory://nowhere"),
    ("report", "run:1"),
    ("report", "damaged"),
    ("report", "empty-ledger"),
    ("attack", "pgd", "/dev/zero", "--model", "zoo:cluttered_digits"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--n", BIG),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--batch-size", "1" + "0" * 30),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--eps", BIG),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--eps", "nan"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--steps", "1" + "0" * 30),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--goal", BIG),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--set", "steps=!!int abc"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--set", "steps=2001-99-99"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--set", "steps=&a [*a]"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--set", "steps=" + "[" * 5000),
    ("attack", "pgd", "cluttered-digits:test", "--model", "python:os:system"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "python:nothing"),
    ("attack", "pgd", "cluttered-digits:test", "--model", "/dev/zero"),
    ("attack", "pgd", "cluttered-digits:test", "--model", ""),
    ("attack", "p" * 100_000, "cluttered-digits:test", "--model", "zoo:cluttered_digits"),
    ("explain", "gradient", "cluttered-digits:test", "--model", "zoo:cluttered_digits", "--goal", "-1"),
    ("explain", "--all", "nowhere", "--model", "zoo:cluttered_digits"),
    ("train", "rts", "--model", "zoo:cluttered_digits", "--data", "nowhere:", "--out", "x"),
    ("list", "nothing"),
    ("study", "serve", "foreign"),
    ("study", "report", "foreign"),
    ("study", "report", "nowhere"),
    ("study", "withdraw", "foreign", "Ada"),
    ("--nothing",),
    ("nothing",),
)


def commands(draw: Random, seconds: float) -> dict[str, Any]:
    """Run wrong command lines in a random order; each must end within a minute with exit code 2 and one line."""
    found: dict[str, Any] = {"commands": 0, "refused in one line": 0, "otherwise": []}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        _prepare(Path(place))
        for arguments in draw.sample(COMMANDS, len(COMMANDS)):
            if time.monotonic() > end:
                break
            found["commands"] += 1
            done = in_child(partial(_command, place, arguments), seconds=60)
            if done.code == REFUSED and done.said.strip().count("\n") == 0 and len(done.said) < 2500:
                found["refused in one line"] += 1
            else:
                short = " ".join(arguments)[:80]
                found["otherwise"].append(f"{short}: exit code {done.code}, {done.said.strip()[-160:]!r}")
    return found


def _command(place: str, arguments: tuple[str, ...]) -> None:
    os.chdir(place)
    raise SystemExit(main(arguments))


def _prepare(place: Path) -> None:
    """Write the files that the command lines name."""
    laughs = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (place / "bomb.yaml").write_text("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *laughs]))
    merges = [f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}" for i in range(1, 12)]
    (place / "merge.yaml").write_text("\n".join(["m0: &m0 {a: 1, b: 2}", *merges]))
    (place / "many.yaml").write_text("model: x\ndata: y\nattacks:\n" + "- fgsm\n" * 20_000)
    for name, content in {"damaged": "{", "empty-ledger": json.dumps({"schema": 3})}.items():
        (place / name).mkdir()
        (place / name / "ledger.json").write_text(content)
    (place / "other").mkdir()
    (place / "other" / "thesis.txt").write_text("years of work")
    (place / "foreign").mkdir()


class _Runs:
    """An object that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def _model_files(place: Path, marker: Path) -> None:
    """Write hostile model files: pickles that run code, cut and empty files, and headers that promise too much."""
    code = pickle.dumps(_Runs(marker))
    for suffix in ("pt", "pth", "ckpt", "pkl", "bin"):
        (place / f"pickle.{suffix}").write_bytes(code)
        torch.save({"state_dict": _Runs(marker)}, place / f"saved.{suffix}")
        (place / f"empty.{suffix}").write_bytes(b"")
    for suffix in ("safetensors", "onnx", "pt2", "joblib", "h5"):
        (place / f"pickle.{suffix}").write_bytes(code)
        (place / f"empty.{suffix}").write_bytes(b"")
        (place / f"zero.{suffix}").write_bytes(bytes(1000))
    whole = io.BytesIO()
    torch.save({"weight": torch.zeros(1000)}, whole)
    (place / "cut.pt").write_bytes(whole.getvalue()[:2000])
    (place / "huge.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (place / "promise.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with zipfile.ZipFile(place / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", bytes(300_000_000))
        bomb.writestr("archive/version", "3")


def model_files(draw: Random, seconds: float) -> dict[str, Any]:
    """Load hostile model files in a random order; none may run code, and each is refused in one line."""
    end = time.monotonic() + seconds
    found: dict[str, Any] = {"files": 0, "refused in one line": 0, "code ran": 0, "megabytes": 0.0, "otherwise": []}
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        marker = place / "code-ran"
        _model_files(place, marker)
        files = sorted(place.iterdir())
        for path in draw.sample(files, len(files)):
            for uri in (str(path), f"{path}?arch=resnet18"):
                if time.monotonic() > end:
                    return found
                done = in_child(partial(_load, uri), seconds=60, limits={resource.RLIMIT_CORE: 0})
                found["files"] += 1
                found["megabytes"] = max(found["megabytes"], round(done.megabytes))
                found["code ran"] += marker.exists()
                marker.unlink(missing_ok=True)
                if done.code == REFUSED and done.said.strip().count("\n") == 0:
                    found["refused in one line"] += 1
                else:
                    ending = "no answer" if done.code == -signal.SIGKILL else done.said.strip()[-160:]
                    found["otherwise"].append(f"{uri.removeprefix(text + '/')}: exit code {done.code}, {ending!r}")
    return found


def _load(uri: str) -> None:
    from underfire import models

    models.load(uri)
