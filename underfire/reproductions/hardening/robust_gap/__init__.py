"""The gap between prediction and explanation of robustly trained networks."""
