"""Memory that stays with the process after its tensors are freed."""

import subprocess
import sys

import pytest

_FAULTS = """
import resource, torch
from underfire.allocation import keep_freed_memory
kept = keep_freed_memory() if {keep} else True
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def _faults(keep: bool) -> tuple[bool, int]:
    """Return whether memory is kept, and the pages that ten tensors of 64 MB take anew."""
    script = _FAULTS.format(keep=keep)
    kept, count = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    return kept == "True", int(count)


@pytest.mark.slow
def test_kept_memory_is_used_again() -> None:
    kept, count = _faults(keep=True)
    if not kept:
        pytest.skip("the C library is not glibc")
    assert count < 100 < _faults(keep=False)[1]
