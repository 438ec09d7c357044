"""TensorBoard event files from finished learning curves; the only file that knows TensorBoard."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from sizewise.errors import extra
from sizewise.records import Run


def write_curves(folder: Path, run: Run) -> None:
    """Write the curves of one run to `folder/<label>`, in place of what an earlier attempt left there.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """
    with extra("tensorboard", needed_for="writing TensorBoard curves"):
        from torch.utils.tensorboard import SummaryWriter
    place = folder / label(run)
    shutil.rmtree(place, ignore_errors=True)
    with SummaryWriter(str(place)) as writer:
        for point in run.curve:
            scalars = {
                "loss/train": point.train_loss,
                "loss/validation": point.validation_loss,
                f"{run.validation.metric.name}/validation": point.validation_score,
                "learning rate": point.lr,
            }
            for name, value in scalars.items():
                if math.isfinite(value):
                    writer.add_scalar(name, value, point.step)


def label(run: Run) -> str:
    """A name that sorts by width and seed and is unique by the trial's key."""
    trial = run.trial
    origin = f"-{trial.origin.method.kind}" if trial.origin else ""
    return f"width{trial.width:04d}-seed{trial.seed}{origin}-{trial.key[:6]}"
