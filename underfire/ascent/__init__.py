"""Loops of attacks and their parts: threats, objectives, moves and step rules, which `loop.ascend` puts together."""
