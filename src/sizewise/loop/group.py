"""The workers that train one model together, by PyTorch's own data parallelism; one process alone is a group of one.

Every worker has the same seed, the same order of batches and its own slice of every batch, so that the numbers are
those of one process up to rounding. What a model draws itself (dropout, augmentation) each worker draws for its slice:
there, and in batch norms, which see a slice, runs are alike in distribution only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sizewise import families
from sizewise.records import Parallelism, Signature

T = TypeVar("T")

NONE = Parallelism()


@dataclass(frozen=True)
class Group:
    """The workers that train one model, as one of them sees it. All must call the same methods in the same order.

    Attributes:
        rank: of this one, from 0; the first one publishes what comes out.
    """

    rank: int = 0
    parallelism: Parallelism = NONE

    @property
    def size(self) -> int:
        """Workers."""
        return self.parallelism.workers

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    @property
    def sharded(self) -> bool:
        """Whether a worker has only its part of every weight."""
        return self.parallelism.strategy == "fsdp2"

    @property
    def seed_of_gradients(self) -> Tensor | None:
        """What backward passes begin with: gradients are averaged over the workers, and their sum is wanted."""
        return None if self.alone else torch.tensor(float(self.size))

    def share(self, samples: Tensor) -> tuple[Tensor, float]:
        """This worker's slice of the samples, and its weight: where there are fewer samples than workers, one that has
        none takes the first with weight 0, since all must take part in what they do together."""
        if self.alone:
            return samples, 1.0
        own = torch.tensor_split(samples, self.size)[self.rank]
        return (own, 1.0) if len(own) else (samples[:1], 0.0)

    def sums(self, *values: float) -> tuple[float, ...]:
        """Each value summed over the workers, the same on all."""
        if self.alone:
            return values
        both = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(both)
        return tuple(both.tolist())

    def agreed(self, value: T) -> T:
        """What the first worker says."""
        if self.alone:
            return value
        said = [value]
        dist.broadcast_object_list(said)
        return said[0]

    def gathered(self, values: list[T]) -> list[list[T]]:
        """The lists of all workers, by rank; on others than the first nothing."""
        if self.alone:
            return [values]
        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(values, found)
        return found or []

    def spread(self, module: nn.Module, signature: Signature) -> nn.Module:
        """Share out a module, in place, before it has an optimizer; what a step calls in its place."""
        if self.alone:
            return module
        if self.sharded:
            _shard(module, signature, self.size)
            return module
        return DistributedDataParallel(module, forward_sync_buffers=False, gradient_as_bucket_view=True)

    def adding(self, net: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """Gradients of a batch's parts are brought together with the last. Sharded ones are with each: whole ones,
        waiting, would take the memory that sharding saves."""
        if isinstance(net, DistributedDataParallel) and not last:
            held: AbstractContextManager[None] = net.no_sync()
            return held
        return nullcontext()

    def level(self, module: nn.Module) -> None:
        """Give all workers the mean of their buffers: running statistics, which each takes of its own samples."""
        if self.alone:
            return
        for buffer in module.buffers():
            if buffer.is_floating_point():
                total = buffer.double()
                dist.all_reduce(total)
                buffer.copy_(total / self.size)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with all their parts."""
        from torch.distributed.tensor import DTensor

        return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}

    def wait(self) -> None:
        """Until all are here."""
        if not self.alone:
            dist.barrier()


ALONE = Group()
"""One process by itself."""


def _shard(module: nn.Module, signature: Signature, workers: int) -> None:
    """Shard weights, gradients and optimizer states (Rajbhandari et al. 2020, arXiv:1910.02054, section 5.3), block by
    block, so that one block at a time is whole (Zhao et al. 2023, arXiv:2304.11277, section 3)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for weight in module.parameters():
        weight.data = weight.data.contiguous()  # parts of other layouts are not supported
    mesh = init_device_mesh("cpu", (workers,))
    for block in blocks(module, signature):
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def blocks(module: nn.Module, signature: Signature) -> list[nn.Module]:
    """The parts of a module that can be whole one at a time: members of its lists that have layers, share no weight
    with others, and are called as a whole, once, which one pass of a sample tells. What they answer with must be no
    view: FSDP2 does not notice when the next layer writes into one."""
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
    candidates = [member for part in lists for member in part.children() if any(member.children())]
    calls = dict.fromkeys(candidates, 0)

    def called(block: nn.Module, inputs: object, output: object) -> None:
        calls[block] += 2 if isinstance(output, Tensor) and output._is_view() else 1

    handles = [block.register_forward_hook(called) for block in calls]
    module.eval()
    with torch.no_grad():
        module(*families.example(signature, 1))
    for handle in handles:
        handle.remove()
    shared = {name for names in families.ties(module) for name in names}
    tied = {id(module.get_parameter(name)) for name in shared}
    return [b for b, count in calls.items() if count == 1 and not any(id(p) in tied for p in b.parameters())]


__all__ = ["ALONE", "Group", "blocks"]
