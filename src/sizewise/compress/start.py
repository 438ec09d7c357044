"""What a compressing trial starts from: the parent's weights, cut, or random ones and the parent as a teacher."""

from __future__ import annotations

from sizewise import families
from sizewise.compress.prune import prune
from sizewise.loop import Data, Start, predict
from sizewise.records import Trial
from sizewise.store import Store


def prepare(trial: Trial, store: Store, data: Data) -> Start:
    """The start of a trial; one without an origin starts from random weights."""
    if trial.origin is None:
        return Start()
    parent = store.run(trial.origin.parent).trial
    family = families.load(parent.family, data.task.signature)
    module = family.build(parent.width, weights=store.trial_folder(parent.key) / "model.safetensors")
    if trial.origin.method == "prune":
        return Start(weights=prune(module, family, trial.width))
    signature = data.task.signature
    return Start(teacher=predict(families.arrange_module(module, signature), data.x, signature))
