"""Train networks: one loop, batches, schedules, checkpoints that resume to the same weights, and files."""

from underfire.learning.augmentation import crop_and_flip
from underfire.learning.average import Average
from underfire.learning.batches import Drawn, Shuffled
from underfire.learning.checkpoints import Checkpoint
from underfire.learning.computation import Computation, Loss
from underfire.learning.fingerprints import model_fingerprint
from underfire.learning.guards import Guard, KeepBest, MaskingGuard, Verdict
from underfire.learning.ledgers import JsonLines, MLflow, TensorBoard, read_json_lines
from underfire.learning.loop import Watch, fit
from underfire.learning.processes import Processes, start_processes
from underfire.learning.reports import Outcome, Report
from underfire.learning.schedules import Schedule, cosine, one_cycle, steps_down, warm_up
from underfire.learning.seeds import drawn_seed, initialised
from underfire.learning.tensor_files import read_facts, read_tensors, write_tensors
from underfire.learning.validation import AttackedAccuracy

__all__ = [
    "AttackedAccuracy",
    "Average",
    "Checkpoint",
    "Computation",
    "Drawn",
    "Guard",
    "JsonLines",
    "KeepBest",
    "Loss",
    "MLflow",
    "MaskingGuard",
    "Outcome",
    "Processes",
    "Report",
    "Schedule",
    "Shuffled",
    "TensorBoard",
    "Verdict",
    "Watch",
    "cosine",
    "crop_and_flip",
    "drawn_seed",
    "fit",
    "initialised",
    "model_fingerprint",
    "one_cycle",
    "read_facts",
    "read_json_lines",
    "read_tensors",
    "start_processes",
    "steps_down",
    "warm_up",
    "write_tensors",
]
