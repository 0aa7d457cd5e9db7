"""Audits: plan a spec as a graph of independent cells, compute the cells, and summarise their results."""
