"""Make the site from the files: a hook of mkdocs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import method_pages
from api_pages import api_pages, has_page
from code_links import CODE_LINK, ROOT
from generate import MARKER
from parts import results

#: The head of a table whose last column is that of the paper.
PAPER_LAST = re.compile(r"<table>((?:(?!</thead>).)*<th[^>]*>paper[^<]*</th>\s*</tr>\s*</thead>)", re.DOTALL)

#: Pages that are files beside the folder of the documentation.
ROOT_PAGES = {"changelog.md": "CHANGELOG.md", "security.md": "SECURITY.md", "contributing.md": "CONTRIBUTING.md"}


def on_config(config: Any) -> Any:
    """Add results, API pages and the address of the repository, if it has one (called by mkdocs)."""
    kept = [{title: where} for title, where in results()]
    if kept:
        config.nav.append({"Results": kept})
    config.nav.append({"API": [{Path(where).stem: where} for where in api_pages() if where.count("/") == 1]})
    config.repo_url = config.repo_url or _repository()
    config.repo_name = config.repo_name or (config.repo_url and "Repository")
    return config


def _repository() -> str | None:
    """Return the web address of the repository that the files were cloned from, if it has one."""
    command = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    address = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return address.removesuffix(".git") if address.startswith("https://") and "@" not in address else None


def on_files(files: Any, config: Any) -> Any:
    """Add the API pages, the pages of the methods, and the pages of the repository (called by mkdocs)."""
    from mkdocs.structure.files import File

    for where, text in (api_pages() | method_pages.pages() | root_pages()).items():
        files.append(File.generated(config, where, content=text))
    return files


def root_pages() -> dict[str, str]:
    """Return path and text of the pages that are files of the repository, with their links made for the site."""
    pages = {}
    for where, file in ROOT_PAGES.items():
        text = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", (ROOT / file).read_text())
        for page, other in ROOT_PAGES.items():
            text = text.replace(f"]({other})", f"]({page})")
        pages[where] = text
    return pages


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Return a page as the site shows it (called by mkdocs).

    Links to code lead to the page of the method or to the API page, links to files of the repository to their pages,
    and the catalogue has cards in place of tables.
    """
    where = page.file.src_uri if page is not None else "index.md"
    up = "../" * where.count("/")
    if where == "catalogue.md":
        markdown = MARKER.sub(lambda _: method_pages.cards_page(), markdown)
    for name, file in ROOT_PAGES.items():
        markdown = markdown.replace(f"](../{file})", f"]({up}{name})")
    markdown = markdown.replace("](../README.md)", f"]({up}quickstart.md)")
    markdown = re.sub(r"\]\(\.\./benchmarks/[^)]+\)", f"]({up}benchmarks.md)", markdown)

    def target(found: re.Match[str]) -> str:
        method = method_pages.places().get(found[2])
        return f"]({up}{method})" if method else f"][{found[2]}]"

    text = CODE_LINK.sub(target, markdown)
    return re.sub(r"\[([^\[\]]+)\]\[(underfire[\w.]*)\]", lambda m: m[0] if has_page(m[2]) else m[1], text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Mark missed targets on the pages of results, and keep their first column and the paper's in view (by mkdocs)."""
    if not page.file.src_uri.startswith(("reproductions/", "benchmarks")):
        return html
    html = html.replace("<td><strong>missed</strong></td>", '<td class="uf-missed">missed</td>')
    html = html.replace("<td>reached</td>", '<td class="uf-reached">reached</td>')
    html = PAPER_LAST.sub(r"<table data-paper>\1", html)
    return f'<div class="uf-results">{html}</div>'
