"""Fill the disk under a run, and change, cut and delete files of a finished run."""

from __future__ import annotations

import resource
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tools.chaos.audits import audit, state, tables
from tools.chaos.children import REFUSED, in_child
from tools.chaos.parts import rounds
from underfire.audit.ledger import Ledger
from underfire.audit.store import Store
from underfire.errors import LedgerError


def full_disks(draw: Random, seconds: float, expected: str) -> dict[str, Any]:
    """Run the audit where files may not become large, and on a small disk; then give it room and run it again.

    A small disk is a tmpfs, which only root can mount; without it, `disks` stays 0. A run takes some 250 kB of it.
    """
    found = {"files": 0, "disks": 0, "one line": 0, "finished": 0, "torn": 0, "different": 0}
    for i in rounds(seconds, least=4):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "run")
            mounted = i % 2 == 0 and _mount(place, draw.randrange(16_000, 240_000))
            limits = {} if mounted else {resource.RLIMIT_FSIZE: draw.randrange(100, 8_000)}
            try:
                done = in_child(partial(audit, folder), limits=limits)
                found["disks" if mounted else "files"] += 1
                found["finished"] += done.code == 0
                found["one line"] += done.code == REFUSED and done.said.count("\n") == 1
                if mounted:
                    subprocess.run(["mount", "-o", "remount,size=100m", place], check=True)
                found["torn"] += len(in_child(partial(state, folder)).answer["damaged"])
                in_child(partial(audit, folder))
                found["different"] += in_child(partial(state, folder)).answer["tables"] != expected
            finally:
                if mounted:
                    subprocess.run(["umount", "--lazy", place], check=True)
    return found


def _mount(place: str, size: int) -> bool:
    """Mount a small disk; return whether that is possible."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def damage(draw: Random, seconds: float, expected: str) -> dict[str, Any]:
    """Flip bits, cut files and delete files of a finished run, one at a time, and count what is noticed."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "run")
        in_child(partial(audit, folder))
        seed, found = draw.randrange(2**32), dict[str, Any]()
        limit = 120 + 4 * seconds
        found |= in_child(partial(_one_at_a_time, folder, seed, seconds / 2), seconds=limit).answer
        found |= in_child(partial(_repaired, folder, seed, seconds / 2, expected), seconds=limit).answer
    return found


def _one_at_a_time(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Damage one file, see whether reading the run folder notices it, and put the file back."""
    draw = Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = ("bits", "cut", "deleted")
    found: dict[str, Any] = {"files": len(files), "unnoticed": []} | dict.fromkeys(kinds, 0)
    for _ in rounds(seconds):
        path, kind = draw.choice(files), kinds[min(2, draw.randrange(8))]
        kind = "bits" if draw.random() < 0.8 else kind
        content = path.read_bytes()
        if kind == "bits":
            path.write_bytes(flip(content, draw))
        elif kind == "cut":
            path.write_bytes(content[: draw.randrange(len(content))])
        else:
            path.unlink()
        found[kind] += 1
        if not _noticed(folder, path):
            found["unnoticed"].append(f"{kind} {path.relative_to(folder)}")
        path.write_bytes(content)
    return found


def flip(content: bytes, draw: Random) -> bytes:
    """Return the content with one random bit flipped."""
    changed = bytearray(content)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _noticed(folder: Path, path: Path) -> bool:
    """Return whether reading the run folder names a file, or its result counts as missing."""
    if path.name == "ledger.json":
        try:
            Ledger(folder)
        except LedgerError:
            return True
        return False
    store, key = Store(folder), path.parent.name
    return not path.parent.joinpath("manifest.json").exists() or store.damaged([key]) == {
        key: str(path.relative_to(folder))
    }


def _repaired(folder: Path, seed: int, seconds: float, expected: str) -> dict[str, Any]:
    """Flip a bit in each of five files, report the rest, run the audit again, and compare."""
    draw = Random(seed + 1)
    found = {"repairs": 0, "reported": 0, "repaired": 0}
    for _ in rounds(seconds, least=2):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "ledger.json")
        for path in draw.sample(files, 5):
            path.write_bytes(flip(path.read_bytes(), draw))
        found["repairs"] += 1
        found["reported"] += len(Ledger(folder).sql("SELECT * FROM clean")) >= 0
        audit(folder)
        found["repaired"] += tables(Ledger(folder)) == expected
    return found
