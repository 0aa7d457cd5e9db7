"""Counterfactual images (Van Looveren and Klaise, ECML PKDD 2021): the smallest plausible change to another class."""

from underfire.interpreters.counterfactual.counterfactual import counterfactual

__all__ = ["counterfactual"]
