"""Draw one picture of every attack of the catalogue: `python -m tools.attack_gallery`."""
