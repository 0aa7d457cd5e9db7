"""Write the generated parts of README.md and of the pages, so that they can be read on disk and on a forge.

A page says `<!-- generated: NAME -->` and `<!-- end of NAME -->` around a generated part; a test keeps them true.
"""

from __future__ import annotations

import re

from code_links import CODE_LINK, ROOT, place_of
from parts import PARTS

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKER = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end of \1 -->", re.DOTALL)


def renewed(text: str) -> str:
    """Return the text of a page with its generated parts and the files of its links to code as they are now."""
    parts = MARKER.sub(
        lambda found: f"<!-- generated: {found[1]} -->\n\n{PARTS[found[1]]()}\n\n<!-- end of {found[1]} -->", text
    )
    return CODE_LINK.sub(lambda found: f']({place_of(found[2])} "{found[2]}")', parts)


if __name__ == "__main__":
    from underfire.audit.templates import template

    for page in PAGES:
        page.write_text(renewed(page.read_text()))
    (ROOT / "examples" / "audit.yaml").write_text(template())
