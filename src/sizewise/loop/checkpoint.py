"""A run under way on disk: one safetensors file of a run alone, a folder of every worker's of a run on several.

Both hold the same tensors by the same names, and either kind of run goes on from either, on any number of workers. The
folder is written and read by `torch.distributed.checkpoint`, in safetensors too; nothing is ever pickled.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sizewise.loop.data import Start
from sizewise.loop.group import Group
from sizewise.loop.state import State, begin
from sizewise.records import Engine, Point, Trial, from_json, to_json
from sizewise.store import Store, write_atomic
from sizewise.tasks import Task

FOLDER, RECORD = "checkpoints", "state.json"
"""Of a trial's folder: one folder for each epoch in it, with the record beside the tensors."""


def save(state: State, store: Store, key: str) -> None:
    """Keep the whole state of a trial, in place of what was kept before; a kill leaves one of the two."""
    if state.group.alone:
        store.keep(store.checkpoint(key), snapshot(state))
    else:
        _save_together(state, store.trial_folder(key) / FOLDER / str(state.epoch))
    if state.group.rank == 0:
        _forget(store, key, kept=store.checkpoint(key).name if state.group.alone else str(state.epoch))
    state.group.wait()


def discard(store: Store, key: str) -> None:
    """Remove what was kept of a run that is finished."""
    _forget(store, key, kept="")


def _forget(store: Store, key: str, kept: str) -> None:
    file, folder = store.checkpoint(key), store.trial_folder(key) / FOLDER
    if kept != file.name:
        store.drop(file)
    for other in folder.glob("*"):
        if other.name != kept:
            shutil.rmtree(other, ignore_errors=True)
    if not kept.isdigit():
        shutil.rmtree(folder, ignore_errors=True)


def snapshot(state: State) -> bytes:
    """The whole state as one safetensors file, its record as metadata."""
    from safetensors.torch import save

    return save(_tensors(state), {"state": json.dumps(_record(state))})


def _save_together(state: State, target: Path) -> None:
    """Every worker writes its part; the first gives the folder its name when all have."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    unfinished = target.with_name(f".tmp-{target.name}")
    if state.group.rank == 0:
        shutil.rmtree(unfinished, ignore_errors=True)
    state.group.wait()
    save(_tensors(state), storage_writer=HuggingFaceStorageWriter(str(unfinished), save_distributed=True))
    if state.group.rank == 0:
        write_atomic(unfinished / RECORD, json.dumps(_record(state)).encode())
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)


def _tensors(state: State) -> dict[str, Tensor]:
    found = {f"module.{name}": tensor for name, tensor in _own(state.module).items()}
    found |= {f"best.{name}": tensor for name, tensor in (state.best or {}).items()}
    if state.average is not None:
        found |= {f"average.{name}": tensor for name, tensor in _own(state.average).items()}
    found |= {f"optimizer.{i}.{slot}": t for i, slot, t in _slots(state.optimizer.state_dict(), Tensor)}
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _record(state: State) -> dict[str, Any]:
    kept = state.optimizer.state_dict()
    return {
        "epoch": state.epoch,
        "seconds": state.seconds,
        "curve": [to_json(point) for point in state.curve],
        "engine": to_json(state.engine),
        "numbers": list(_slots(kept, int | float)),
        "groups": [_numbers(group) for group in kept["param_groups"]],
    }


def latest(store: Store, key: str) -> Path | None:
    """What was kept of a trial that is not finished."""
    folder, file = store.trial_folder(key) / FOLDER, store.checkpoint(key)
    epochs = [path for path in folder.glob("*") if path.name.isdigit() and (path / RECORD).is_file()]
    if epochs:
        return max(epochs, key=lambda path: int(path.name))
    return file if file.exists() else None


def resume(trial: Trial, task: Task, start: Start, kept: Path | None, group: Group) -> State | None:
    """The run as it was kept, on this group's workers; None when it was not, or is damaged, which is said."""
    from safetensors import SafetensorError
    from torch.distributed.checkpoint.api import CheckpointException

    if kept is None:
        return None
    state = begin(trial, task, start, group)
    try:
        _restore(state, *(_read_together(state, kept) if kept.is_dir() else _read(state, kept)))
    except (SafetensorError, CheckpointException, RuntimeError, KeyError, ValueError) as error:
        print(f"warning: {kept} is damaged ({error}); the trial starts again", file=sys.stderr)
        return None
    return state


def _read(state: State, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, a safetensors handle is no dict
        record = json.loads(file.metadata()["state"])
    if state.group.sharded:
        places = _places(state)
        tensors = {name: _parted(tensor, _place(places, name)) for name, tensor in tensors.items()}
    return tensors, record


def _read_together(state: State, folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Each worker reads its parts, from whichever workers' files have them."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    reader, places = HuggingFaceStorageReader(str(folder)), _places(state)
    tensors: dict[str, Any] = {
        name: _room(kept.size, kept.properties.dtype, _place(places, name))
        for name, kept in reader.read_metadata().state_dict_metadata.items()
        if isinstance(kept, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one process alone reads what several wrote is meant
        load(tensors, storage_reader=reader)
    return tensors, json.loads((folder / RECORD).read_bytes())


def _places(state: State) -> dict[str, Tensor]:
    """Tensors that are shared out as those of a checkpoint must be, by what `_place` looks for."""
    module = state.module.state_dict()
    found = {f"{kind}.{name}": tensor for kind in ("module", "best") for name, tensor in module.items()}
    return found | {f"optimizer.{i}": weight.detach() for i, weight in enumerate(_weights(state.optimizer))}


def _place(places: Mapping[str, Tensor], name: str) -> Tensor | None:
    """That of a tensor; all that an optimizer keeps of a weight lies as the weight does."""
    kind, _, rest = name.partition(".")
    return places.get(f"optimizer.{rest.partition('.')[0]}" if kind == "optimizer" else name)


def _room(size: torch.Size, dtype: torch.dtype, place: Tensor | None) -> Tensor:
    fits = place is not None and place.shape == size
    return torch.empty_like(place, dtype=dtype) if fits else torch.empty(size, dtype=dtype)  # type: ignore[arg-type]


def _parted(tensor: Tensor, place: Tensor | None) -> Tensor:
    """A whole tensor, as its place is shared out."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(place, DTensor) or place.shape != tensor.shape:
        return tensor
    return distribute_tensor(tensor, place.device_mesh, place.placements)


def _restore(state: State, tensors: Mapping[str, Tensor], record: dict[str, Any]) -> None:
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "best": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        groups[kind][rest] = tensor
    state.module.load_state_dict(_complete(groups["module"], state.module))
    state.best = groups["best"] or None
    if state.average is not None:
        state.average.load_state_dict(_complete(groups["average"], state.average))
    _restore_optimizer(state.optimizer, groups["optimizer"], record)
    state.epoch, state.seconds = record["epoch"], record["seconds"]
    state.engine = from_json(Engine, record.get("engine", {}))
    state.curve = tuple(Point(**point) for point in record["curve"])


def _restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """An optimizer's tensors by "parameter.slot", and the numbers that it keeps of each parameter and each group."""
    slots: dict[int, dict[str, Any]] = {}
    weights = _weights(optimizer)
    for name, tensor in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = _laid_out(tensor, weights[int(index)])
    for number, slot, value in record.get("numbers", ()):
        slots.setdefault(number, {})[slot] = value
    blank = optimizer.state_dict()["param_groups"]
    groups = [
        group | _numbers(kept) for group, kept in zip(blank, record.get("groups", [{}] * len(blank)), strict=True)
    ]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _laid_out(slot: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's values in the memory layout of their weights: fused optimizers walk both as if they had one."""
    return torch.empty_like(parameter).copy_(slot) if slot.shape == parameter.shape else slot


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _own(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors without the later names of those that have several."""
    later = {name for names in _several(module) for name in names[1:]}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in later}


def _complete(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """With those names again."""
    return tensors | {n: tensors[first] for first, *others in _several(module) for n in others if first in tensors}


def _several(module: nn.Module) -> list[list[str]]:
    """The names of each tensor that has several. By identity: parts of weights have no address of their own."""
    held = chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    by_id: dict[int, list[str]] = {}
    for name, tensor in held:
        by_id.setdefault(id(tensor), []).append(name)
    return [names for names in by_id.values() if len(names) > 1]


def _slots(kept: dict[str, Any], kind: Any) -> Iterator[tuple[int, str, Any]]:
    """What an optimizer's state holds of one kind: (parameter, slot, value)."""
    for index, slots in kept["state"].items():
        for name, value in slots.items():
            if isinstance(value, kind):
                yield index, name, value


def _numbers(group: dict[str, Any]) -> dict[str, int | float]:
    """What a group of weights is trained by; how its steps are computed is the present run's own affair."""
    return {name: value for name, value in group.items() if isinstance(value, int | float) and name != "fused"}


__all__ = ["discard", "latest", "resume", "save", "snapshot"]
