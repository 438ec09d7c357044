"""One training run: its data, its steps, its state and its end. `run.py` is the page that holds it together."""

from sizewise.loop.data import Data, Start, batches, unused
from sizewise.loop.environment import environment
from sizewise.loop.evaluate import EVALUATION_BATCH, predict, validation_loss
from sizewise.loop.run import Progress, out_of_memory, train_one
from sizewise.loop.step import at_once, time_steps

__all__ = [
    "EVALUATION_BATCH",
    "Data",
    "Progress",
    "Start",
    "at_once",
    "batches",
    "environment",
    "out_of_memory",
    "predict",
    "time_steps",
    "train_one",
    "unused",
    "validation_loss",
]
