"""Draw attribution maps over images, magnified perturbations, and sheets of many pictures."""

from underfire.figures.overlay import heatmap, magnify, to_data_uri, to_png_bytes
from underfire.figures.sheets import save, save_small, sheet

__all__ = ["heatmap", "magnify", "save", "save_small", "sheet", "to_data_uri", "to_png_bytes"]
