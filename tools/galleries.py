"""The command line that the galleries of attacks and of interpreters share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from underfire.errors import UnderfireError


def main(kind: str, write: Callable[..., Path]) -> None:
    """Draw a gallery, with the options of the command line.

    Args:
        kind: what it shows, `"attack"` or `"interpreter"`.
        write: draws the gallery below a folder and returns the page.
    """
    parser = argparse.ArgumentParser(description=f"Draw every {kind} of the catalogue.")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page")
    parser.add_argument("--data", type=Path, help="folder of real data and weights")
    parser.add_argument("--only", nargs="+", default=[], help=f"names of the {kind}s to draw; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        page = write(options.out, root=options.data, names=options.only, seed=options.seed)
    except UnderfireError as error:
        parser.error(str(error))
    print(f"written to {page}")
