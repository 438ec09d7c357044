"""One model to train: everything that decides its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Literal

from sizewise.methods import Distil, Training
from sizewise.records.form import from_json, to_json


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one model is trained.

    Attributes:
        optimizer: "gd" is batch gradient descent (one step an epoch, whole training split); all are in
            `recipe.OPTIMIZERS`.
        lr: learning rate; in a `Study` that of the reference width, in a `Trial` that of its own width. "prodigy" finds
            its rate and takes this as a factor of it, usually 1.
        momentum: of "momentum", "nesterov" and "muon".
        batch_size: samples a step; ignored by "gd".
        schedule: "linear" and "cosine" decay to zero after a linear warm-up over `warmup` of the steps; "wsd" warms up
            over `warmup` of an epoch, stays, and decays over the last `decay` of the epochs. "schedule-free" warms up
            and stays, whatever is said here.
        loss: "cross_entropy" stands for the problem's own loss. Others are between outputs and one-hot or numeric
            targets: "mse", the mean over outputs of the squared error (Hui & Belkin 2020, arXiv:2006.07322),
            "half_sse", half its sum, "mae" and "huber" (with its bend at 1), means over outputs, and "binary", the
            mean cross-entropy of each output's own yes or no.
        label_smoothing: share of the target that is spread over all classes, in [0, 1) (Szegedy et al. 2016,
            arXiv:1512.00567).
        clip: largest norm of the gradient, which is scaled down to it (Pascanu et al. 2013, arXiv:1211.5063); 0 is off.
        patience: stop after this many epochs without a lower validation loss and keep the best epoch; 0 is off.
        augment: change training samples at random: images and volumes, and boxes along with them.
        accumulate: parts in which the gradient of a batch is added up, to need less memory at a time.
        average: weights that are used are an average, "ema" over steps at `average_decay` or "swa" over the ends of the
            last quarter of the epochs.
        dropout: share of values that layers of dropout leave out (Srivastava et al. 2014); None is what a family has.
        precision: "bf16" multiplies matrices in numbers of 8 significant bits, faster on processors that can; weights,
            their gradients, the loss and the optimizer stay in 32 bits (Kalamkar et al. 2019, arXiv:1905.12322).
    """

    optimizer: Literal[
        "gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "muon", "schedule-free", "prodigy"
    ] = "adam"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 64
    epochs: int = 5
    schedule: Literal["constant", "linear", "cosine", "wsd"] = "cosine"
    warmup: float = 0.05
    loss: Literal["cross_entropy", "mse", "half_sse", "mae", "huber", "binary"] = "cross_entropy"
    label_smoothing: float = 0.0
    clip: float = 0.0
    patience: int = 0
    augment: bool = False
    decay: float = 0.2
    accumulate: int = 1
    average: Literal["none", "ema", "swa"] = "none"
    average_decay: float = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    dropout: float | None = None

    def decisive(self) -> dict[str, Any]:
        """The fields that tell this recipe from others: those that came later count only where they are not as before,
        so that a trial keeps its key."""
        later = {"decay", "accumulate", "average", "average_decay", "precision", "dropout"}
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default or field.name not in later
        }


@dataclasses.dataclass(frozen=True)
class Origin:
    """The run that a trial of compression comes from.

    Attributes:
        method: what is done to it.
        parent: key of the parent trial.
    """

    method: Training
    parent: str


@dataclasses.dataclass(frozen=True)
class Weights:
    """Trained weights that a trial starts from.

    Attributes:
        sha256: of the safetensors file that holds them; the study keeps it as `starts/<sha256>.safetensors`.
        cut: whether a smaller model takes its part of larger tensors (weight selection; Xu et al. 2024,
            arXiv:2311.18823); else only tensors of its own shapes are taken.
        same_tokens: whether they were trained on the tokens of the trial's own task; vectors of other tokens are left.
    """

    sha256: str
    cut: bool = False
    same_tokens: bool = False


@dataclasses.dataclass(frozen=True)
class Trial:
    """One model to train: everything that decides its result, and nothing else.

    Attributes:
        fingerprint: hash of the task's data, splits and preprocessing.
        fraction: share of the training split used, in (0, 1].
        origin: the run that it descends from or learns from, in compression.
        start: trained weights that it starts from; None is random ones, or in pruning those of its origin.
    """

    task: str
    fingerprint: str
    family: str
    width: int
    fraction: float
    recipe: Recipe
    seed: int
    origin: Origin | None = None
    start: Weights | None = None

    @property
    def key(self) -> str:
        """Content hash, 16 hex digits: equal trials have equal keys on every machine."""
        # Through the converter, which makes a rate written as 1 the float that it will be read back as.
        trial = from_json(Trial, to_json(self))
        plain = to_json(trial) | {"recipe": to_json(trial.recipe.decisive())}
        if self.start is None:
            del plain["start"]  # trials had no start once, and keep their keys
        if self.origin and isinstance(self.origin.method, Distil) and self.origin.method.lesson == "answers":
            del plain["origin"]["method"]["lesson"]  # teachers taught nothing else once
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of the runs that it descends from and learns from."""
        if self.origin is None:
            return ()
        teachers = self.origin.method.teachers if isinstance(self.origin.method, Distil) else ()
        return (self.origin.parent, *teachers)

    @property
    def size(self) -> str:
        """Content hash of what the seeds of one size share, whatever their rate, length, data or parent."""
        recipe = dataclasses.replace(self.recipe, lr=1.0, epochs=1)
        origin = self.origin and dataclasses.replace(self.origin, parent="")
        return dataclasses.replace(self, fraction=1.0, seed=0, recipe=recipe, origin=origin, start=None).key
