"""Train networks: one loop, batches, schedules, checkpoints that resume to the same weights, and files."""

from underfire.learning.augmentation import crop_and_flip
from underfire.learning.average import Average
from underfire.learning.batches import Drawn, Shuffled
from underfire.learning.checkpoints import Checkpoint
from underfire.learning.computation import Computation, Loss
from underfire.learning.fingerprints import model_fingerprint
from underfire.learning.loop import Report, fit
from underfire.learning.schedules import Schedule, cosine, one_cycle, steps_down, warm_up
from underfire.learning.seeds import drawn_seed, initialised
from underfire.learning.tensor_files import read_facts, read_tensors, write_tensors

__all__ = [
    "Average",
    "Checkpoint",
    "Computation",
    "Drawn",
    "Loss",
    "Report",
    "Schedule",
    "Shuffled",
    "cosine",
    "crop_and_flip",
    "drawn_seed",
    "fit",
    "initialised",
    "model_fingerprint",
    "one_cycle",
    "read_facts",
    "read_tensors",
    "steps_down",
    "warm_up",
    "write_tensors",
]
