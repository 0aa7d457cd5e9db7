"""Measure in a browser study how well people predict a model's decisions, without and with explanations.

`design` assigns images to annotators, `prepare` draws the pictures, `app` serves them and measures times, `store` keeps
the answers, `results` computes information transfer rates and trust coefficients, `page` renders those, and `simulate`
answers in place of people.
"""

from underfire.study import design, prepare, results, simulate, store

__all__ = ["design", "prepare", "results", "simulate", "store"]
