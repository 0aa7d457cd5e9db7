"""Measure in a browser study how well people predict a model's decisions, without and with explanations.

`design` assigns images to annotators, `prepare` chooses images, `pictures` draws them, `app` serves them and measures
times, `store` keeps the answers, `checks` says which answers count and how many a result needs, `results` computes
information transfer rates and trust coefficients, `page` renders those, and `simulate` answers in place of people. A
second kind of study measures how often people notice attacked inputs: `attacked` makes those, and `noticing` computes
the results.
"""

from underfire.study import attacked, design, noticing, prepare, results, simulate, store

__all__ = ["attacked", "design", "noticing", "prepare", "results", "simulate", "store"]
