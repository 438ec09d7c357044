"""How a model is trained: optimizers, schedules, weight averages, and how a rate follows the width."""

from sizewise.recipe.averaging import average, average_epoch
from sizewise.recipe.dropout import dropout_layers, set_dropout
from sizewise.recipe.optimizers import OPTIMIZERS, evaluating, optimizer, slots, training, unfused
from sizewise.recipe.scaling import REFERENCE_WIDTH, at_width
from sizewise.recipe.schedules import schedule, stable_epochs, trunk_of
from sizewise.recipe.validity import batch_of, batches_per_epoch, check

__all__ = [
    "OPTIMIZERS",
    "REFERENCE_WIDTH",
    "at_width",
    "average",
    "average_epoch",
    "batch_of",
    "batches_per_epoch",
    "check",
    "dropout_layers",
    "evaluating",
    "optimizer",
    "schedule",
    "set_dropout",
    "slots",
    "stable_epochs",
    "training",
    "trunk_of",
    "unfused",
]
