"""A browser study: how well people reproduce a model's decisions, without and with explanations.

`design` says who sees what, `prepare` makes the pictures, `app` serves them and times the answers, `store` keeps these,
`results` turns them into information transfer rates and trust coefficients, `page` shows those, and `simulate` takes
part in people's place.
"""

from underfire.study import design, prepare, results, simulate, store

__all__ = ["design", "prepare", "results", "simulate", "store"]
