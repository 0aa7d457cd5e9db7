"""Draw one picture of every attack of the catalogue: `python -m tools.attack_gallery`.

The command writes `gallery.md` and one small figure for each attack: the clean image, the magnified change, and the
adversarial image. With `--data`, attacks that fit a large image are shown on photographs, otherwise on digits of the
package. The two photographs come with scikit-image and are in the public domain (CC0).
"""

from __future__ import annotations

from tools import galleries
from tools.attack_gallery.page import write

if __name__ == "__main__":
    galleries.main("attack", write)
