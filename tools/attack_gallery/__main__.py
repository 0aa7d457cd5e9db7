"""Draw one picture of every attack of the catalogue: `python -m tools.attack_gallery`.

The command writes `gallery.md` and one small figure for each attack: the clean image, the magnified change, and the
adversarial image. With `--data`, attacks that fit a large image are shown on photographs, otherwise on digits of the
package. The two photographs come with scikit-image and are in the public domain (CC0).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.attack_gallery.page import write


def main() -> None:
    """Draw the gallery, with the options of the command line."""
    parser = argparse.ArgumentParser(description="Draw every attack of the catalogue.")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the page")
    parser.add_argument("--data", type=Path, help="folder of real data and weights")
    parser.add_argument("--only", nargs="+", default=[], help="names of the attacks to draw; default: all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"written to {write(options.out, root=options.data, names=options.only, seed=options.seed)}")


if __name__ == "__main__":
    main()
