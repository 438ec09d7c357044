"""What a compressing trial starts from: its parent's weights as a method leaves them or its own, and teachers."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sizewise import families
from sizewise.compress.factorize import factorize
from sizewise.compress.importance import sampled, weight_scores
from sizewise.compress.narrow import narrow
from sizewise.compress.prune import prune
from sizewise.compress.qat import Rounding
from sizewise.compress.shorten import shorten
from sizewise.compress.sparsify import Zeros
from sizewise.loop import Data, Start, features, predict, validation_loss
from sizewise.methods import QAT, Distil, Factorize, Narrow, Prune, Shorten, Sparsify
from sizewise.records import Signature, Trial
from sizewise.store import Store
from sizewise.train import untaught


def prepare(trial: Trial, store: Store, data: Data) -> Start:
    """The start of a trial; one without an origin has no teacher."""
    own = untaught(trial, store, data)
    if trial.origin is None:
        return own
    task, parent = data.task.signature, store.run(trial.origin.parent).trial
    module = trained(parent, store, task)
    match trial.origin.method:
        case Narrow():
            return Start(weights=narrow(module, families.load(parent.family, task), trial.width))
        case Distil(start="random"):
            return replace(own, teacher=_taught(trial.origin.method, (parent.key,), store, data))
        case Distil() as method:
            return _formed(module, trial, data, _taught(method, (), store, data))
        case Prune() as method:
            scores = weight_scores(module, method.importance, data, trial.recipe, trial.seed)
            return _formed(prune(module, method, task, scores), trial, data)
        case Shorten() as method:
            return _formed(shorten(module, method, task, lambda m: training_loss(m, trial, data)), trial, data)
        case Factorize() as method:
            return _formed(factorize(module, method, task), trial, data)
        case Sparsify() as method:
            return replace(_formed(module, trial, data), constraint=Zeros(method))
        case QAT():
            return replace(_formed(module, trial, data), constraint=Rounding())


def training_loss(module: nn.Module, trial: Trial, data: Data) -> float:
    """Mean loss on the training samples that gradients are taken on, in evaluation mode."""
    chosen = sampled(data)
    return validation_loss(
        module, trial.recipe, replace(data, x_validation=data.x[chosen], y_validation=data.y[chosen])
    )


def trained(trial: Trial, store: Store, task: Signature) -> nn.Module:
    """The model that a finished trial left."""
    family = families.load(trial.family, task)
    return family.build(trial.width, weights=store.trial_folder(trial.key) / "model.safetensors")


def _formed(module: nn.Module, trial: Trial, data: Data, teacher: Tensor | None = None) -> Start:
    with torch.device("meta"):
        original = families.load(trial.family, data.task.signature).build(trial.width)
    return Start(module.state_dict(), teacher, families.Form.of(module, original))


def _taught(method: Distil, parents: tuple[str, ...], store: Store, data: Data) -> Tensor:
    """What the teachers say of the training split: logits, or the features of all, one beside the other.

    Logits of an ensemble are the logarithms of its mean probabilities at the method's temperature, times that
    temperature: a softmax at the temperature gives the mean back.
    """
    signature, said = data.task.signature, []
    for key in (*parents, *method.teachers):
        module = families.arrange_module(trained(store.run(key).trial, store, signature), signature)
        tell = features if method.lesson == "features" else predict
        said.append(tell(module, data.x, signature))
    if method.lesson == "features":
        return torch.cat(said, dim=1)
    if len(said) == 1:
        return said[0]
    shares = [torch.softmax(logits / method.temperature, dim=1) for logits in said]
    return method.temperature * torch.stack(shares).mean(0).clamp(min=1e-12).log()
