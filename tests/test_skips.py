"""What a run leaves out is counted by what it lacks, and only peers may lack on a continuous-integration machine."""

from __future__ import annotations

from tests import skips

REASONS = (
    "('tests/a.py', 3, 'Skipped: needs Chromium: no chromium on the PATH')",
    "('tests/b.py', 3, \"Skipped: could not import 'ray': No module named 'ray'\")",
    "('tests/c.py', 3, 'Skipped: needs real data: UNDERFIRE_DATA is not set')",
    "('tests/c.py', 9, 'Skipped: needs real data: UNDERFIRE_DATA is not set')",
    "('tests/d.py', 3, \"Skipped: could not import 'captum.metrics': No module named 'captum'\")",
    "('tests/e.py', 3, 'Skipped: random by its card: …')",
)


def test_skips_are_counted_by_what_they_lack() -> None:
    lacking = skips.count_needs(REASONS)
    assert lacking == {"Chromium": 1, "Ray": 1, "real data": 2, "captum": 1}
    assert sorted(skips.not_allowed(lacking)) == ["Chromium", "Ray", "real data"]
    assert skips.not_allowed(skips.count_needs(REASONS[4:])) == []


def test_a_reason_that_is_not_known_is_not_allowed() -> None:
    assert skips.not_allowed(skips.count_needs(["Skipped: no idea"])) == ["Skipped: no idea"]


def test_the_closing_line_says_how_to_get_what_lacks() -> None:
    line = skips.closing_line(skips.count_needs(REASONS))
    for part in (
        "1 need Chromium (apt-get",
        "1 need Ray (pip",
        "2 need real data (set UNDERFIRE_DATA",
        "1 compare with captum (make bench)",
    ):
        assert part in line
    assert "\n" not in line
    assert skips.closing_line(skips.count_needs([])) == ""
