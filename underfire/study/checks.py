"""Check the answers of a study: leave out those that are no decisions, and say how many answers a result needs.

Random keys have an expected mutual information above 0: for K classes and n answers, 2 n ln 2 times the estimate in
bits follows a chi-squared distribution with (K - 1)² degrees of freedom, so that its mean is (K - 1)² / (2 n ln 2) bits
(this is the G-test). The information transfer rate divides it by the time of an answer, which is short for random keys.
With `answers_needed` answers, the corrected estimate of random keys stays below 0.1 bits in 95 % of all studies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from underfire.study.design import Study
    from underfire.study.store import Annotator, Answer

FASTEST, SLOWEST = 0.15, 60.0
"""The fastest and the slowest answer that counts, in seconds; others are not deliberate decisions."""

HASTY = 0.3
"""Seconds within which people hardly recognise an image and choose a key; a convention of this study."""

FEWEST_ANSWERS = 64
"""The fewest answers for each condition: random keys then have |d'| < 0.43 in 95 % of all studies of noticing."""

FEWEST_ANNOTATORS = 8
"""The fewest annotators for a comparison.

With eight, the paired t-test at 5 % finds a difference of 1.16 standard deviations between annotators with a power of
80 %; with four, it finds only one of 2.13.
"""

_CLOCK_TOLERANCE = 1.0  # seconds by which the times of browser and server may differ
_HASTY_SHARE = 0.1  # of an annotator's answers, from which on a note names the annotator


def answers_needed(classes: int) -> int:
    """Return how many answers for each condition a result needs, for a number of choices: 4 K², and at least 64."""
    return max(FEWEST_ANSWERS, 4 * classes**2)


def annotators_needed(study: Study) -> int:
    """Return how many annotators give enough answers if all finish: a multiple of the group that balances the study."""
    group, conditions = (3, 3) if study.noticing else (4, 2)
    answers = math.ceil(answers_needed(len(study.choices)) * conditions / study.shown)
    return group * math.ceil(max(answers, FEWEST_ANNOTATORS) / group)


def too_few(n: int, classes: int) -> str:
    """Return why `n` answers of one condition are too few for a result, or `""` if they are enough."""
    needed = answers_needed(classes)
    return "" if n >= needed else f"it takes {needed} answers, and there {_are(n)}"


def too_few_annotators(n: int) -> str:
    """Return why `n` annotators are too few for a comparison, or `""` if they are enough."""
    if n >= FEWEST_ANNOTATORS:
        return ""
    return f"it takes {FEWEST_ANNOTATORS} annotators who have answered in every condition, and there {_are(n)}"


def why_excluded(answer: Answer) -> str:
    """Return the reason why an answer does not count, or `""` if it counts."""
    if answer.hidden:
        return "the page was hidden"
    if answer.seconds < FASTEST:
        return f"faster than {FASTEST:g} s"
    if answer.seconds > SLOWEST:
        return f"slower than {SLOWEST:g} s"
    if answer.server_seconds is not None and answer.seconds > answer.server_seconds + _CLOCK_TOLERANCE:
        return "longer than the server measured"
    return ""


def like_random_keys(answers: Sequence[int], right: Sequence[int], level: float = 0.001) -> bool:
    """Return whether the answers do not depend on the right answers, by the G-test: its p-value is above `level`."""
    from scipy.stats import chi2_contingency

    rows, columns = (np.unique(values, return_inverse=True)[1] for values in (answers, right))
    if not len(rows) or not rows.max() or not columns.max():
        return True
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return bool(chi2_contingency(table, correction=False, lambda_="log-likelihood").pvalue > level)


def hasty_notes(annotators: Sequence[Annotator], answers: Sequence[Answer]) -> Iterator[str]:
    """Yield a note about the annotators who gave many answers faster than people recognise an image."""
    all_answers = Counter(a.annotator for a in answers)
    hasty = Counter(a.annotator for a in answers if a.seconds < HASTY)
    shares = {p.name: hasty[p.number] / all_answers[p.number] for p in annotators if hasty[p.number]}
    named = [f"{name} ({share:.0%})" for name, share in shares.items() if share > _HASTY_SHARE]
    if named:
        yield (
            f"{len(named)} of {len(all_answers)} annotators gave more than {_HASTY_SHARE:.0%} of their answers in less "
            f"than {HASTY:g} s, which is too fast to recognise an image: {', '.join(named)}."
        )


def withdrawal_note(n: int) -> Iterator[str]:
    """Yield a note about the annotators who have withdrawn, if there are any."""
    if n:
        yield f"{n} {'annotator has' if n == 1 else 'annotators have'} withdrawn; their answers are deleted."


def _are(n: int) -> str:
    return f"is {n}" if n == 1 else f"are {n}"
