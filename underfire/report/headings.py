"""Permalinks: every heading of the page gets an id and links to itself."""

from __future__ import annotations

import re
from html import unescape

_HEADING = re.compile(r"<h([1-4])((?: [^>]*)?)>(.*?)</h\1>", re.DOTALL)
_ID = re.compile(r'\bid="([^"]+)"')


def permalinks(page: str) -> str:
    """Return the page with a link to itself in every heading.

    A heading without an id gets one from its text. One whose id is `h-NAME` belongs to the section `NAME` and links to
    that.
    """
    taken = set(_ID.findall(page))

    def linked(heading: re.Match[str]) -> str:
        level, attributes, text = heading.groups()
        if not text.strip():  # a script fills it
            return heading[0]
        if known := _ID.search(attributes):
            anchor = known[1].removeprefix("h-")
        else:
            anchor = _free(_slug(text), taken)
            attributes += f' id="{anchor}"'
        return f'<h{level}{attributes}><a class="permalink" href="#{anchor}">{text}</a></h{level}>'

    return _HEADING.sub(linked, page)


def _slug(text: str) -> str:
    """Return the words of a heading as an id.

    >>> _slug("What a <b>complete</b> map cannot hide")
    'what-a-complete-map-cannot-hide'
    """
    return re.sub(r"\W+", "-", unescape(re.sub(r"<[^>]+>", "", text)).casefold()).strip("-") or "part"


def _free(wanted: str, taken: set[str]) -> str:
    """Return `wanted` as an id that no other element has, with a number if need be, and mark it as taken."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(name)
    return name
