"""Make the API pages (used by hooks.py)."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from code_links import ROOT
from method_pages import table

#: Modules and packages that serve the others and are no part of the Python interface.
INTERNAL = ("cli", "incremental", "reproductions", "validate")

#: A package with at most this number of modules has them on one API page.
TOGETHER = 4


def api_pages() -> dict[str, str]:
    """Return path and text of the API pages: one for every public module and package; `INTERNAL` names the others.

    A package with many modules has a page that lists them, and one page for each of them.
    """
    found = (
        p.stem for p in sorted((ROOT / "underfire").iterdir()) if p.suffix == ".py" or (p / "__init__.py").exists()
    )
    pages: dict[str, str] = {}
    for name in found:
        if name.startswith("_") or name in INTERNAL:
            continue
        package = f"underfire.{name}"
        modules = public_modules(package)
        own = f"::: {package}\n    options: {{show_submodules: false}}\n"
        if len(modules) <= TOGETHER:
            parts = [f"::: {part}\n    options: {{heading_level: 2, show_submodules: false}}\n" for part in modules]
            pages[f"api/{name}.md"] = "\n".join([own, *parts])
            continue
        rows = []
        for part in modules:
            where = f"{name}/{part.removeprefix(f'{package}.')}.md"
            pages[f"api/{where}"] = f"::: {part}\n    options: {{show_submodules: false}}\n"
            first = (import_module(part).__doc__ or "").partition("\n")[0]
            rows.append((f"[`{part.removeprefix('underfire.')}`]({where})", first))
        pages[f"api/{name}.md"] = f"{own}\n## Modules\n\n{table(('module', 'content'), rows)}\n"
    return pages


def public_modules(package: str) -> list[str]:
    """Return the public modules of a package: those that define a name of its `__all__`, or all if it has none."""
    module = import_module(package)
    if not hasattr(module, "__path__"):
        return []
    if not hasattr(module, "__all__"):
        return sorted(info.name for info in iter_modules(module.__path__, f"{package}.") if "._" not in info.name)
    named = [getattr(module, name) for name in module.__all__]
    homes = {getattr(value, "__module__", getattr(value, "__name__", package)) for value in named}
    return sorted(home for home in homes if home.startswith(f"{package}."))


@cache
def _documented() -> frozenset[str]:
    """Return the modules that the API pages show."""
    return frozenset(re.findall(r"^::: ([\w.]+)$", "\n".join(api_pages().values()), re.MULTILINE))


def has_page(name: str) -> bool:
    """Return whether an API page shows an object, by its full name."""
    return name in _documented() or name.rpartition(".")[0] in _documented()
