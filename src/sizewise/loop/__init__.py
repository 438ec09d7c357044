"""One training run: its data, its steps, its state and its end. `run.py` is the page that holds it together."""

from sizewise.loop.data import Constraint, Data, Start, batches, unused
from sizewise.loop.environment import environment
from sizewise.loop.evaluate import EVALUATION_BATCH, predict, validation_loss
from sizewise.loop.group import ALONE, Group
from sizewise.loop.lessons import features
from sizewise.loop.parallel import chosen
from sizewise.loop.run import Progress, out_of_memory, train_one
from sizewise.loop.step import at_once, time_steps

__all__ = [
    "ALONE",
    "EVALUATION_BATCH",
    "Constraint",
    "Data",
    "Group",
    "Progress",
    "Start",
    "at_once",
    "batches",
    "chosen",
    "environment",
    "features",
    "out_of_memory",
    "predict",
    "time_steps",
    "train_one",
    "unused",
    "validation_loss",
]
