"""The check of the built site finds a barrier, and nothing where there is none."""

from __future__ import annotations

import shutil
import sys

import pytest

from tools import accessibility

FINE = """<!doctype html><html lang="en"><head><title>A page</title></head>
<body><main><h1>Words</h1><p>More words.</p>{}</main></body></html>"""


def test_a_folder_without_a_site_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["accessibility", str(tmp_path)])
    with pytest.raises(SystemExit, match="run `make docs`"):
        accessibility.main()


@pytest.mark.slow
@pytest.mark.browser
def test_a_picture_without_words_and_a_wide_page_are_found(tmp_path, capsys):
    pytest.importorskip("axe_playwright_python", reason="needs Playwright: pip install '.[dev]'")
    if not (accessibility._chromium() or shutil.which("chromium")):
        pytest.skip("needs Chromium: no chromium on the PATH")
    (tmp_path / "index.html").write_text(FINE.format(""))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "index.html").write_text(FINE.format("<img src='data:,'><p style='width: 3000px'>Wide.</p>"))
    assert accessibility.check(tmp_path, ("", "bad/"), (390,)) == 2
    said = capsys.readouterr().out
    assert "home, light, 390: nothing" in said and "home, dark, 390: nothing" in said
    assert "image-alt: 1 elements" in said and "pixels wider than its window" in said
