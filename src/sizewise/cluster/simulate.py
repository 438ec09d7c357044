"""One training step of a large model on many devices, from what the literature says of its parts.

What is assumed, besides what the fields of `Hardware` and `Layout` say:

- all devices and links of a kind are equal, nothing fails, and every replica has as much to do as any other;
- a ring of replicas that crosses nodes is as fast as its slowest link, and links are shared by nobody else;
- a pipeline's parts take equally long; their schedule is one forward, one backward (Narayanan et al. 2021,
  arXiv:2104.04473, section 2.2), so that a device holds at most as many micro-batches as there are parts;
- replicas communicate while the backward pass is computed, as far as `overlap` says, and at no other time;
- reading samples, evaluating and writing checkpoints take no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sizewise.cluster.links import Link
from sizewise.cluster.memory import FITS, Footprint
from sizewise.cluster.work import Work
from sizewise.errors import BudgetError, UsageError


@dataclass(frozen=True)
class Hardware:
    """Machines of one kind.

    Attributes:
        nodes, devices: machines, and devices of each.
        flops: FLOP per second that a device could do at most, in the numbers that products are computed in.
        efficiency: share of it that a step reaches where nothing is waited for, in (0, 1]; measure it on one device.
        memory_bytes: of a device.
        inside, between: links of the devices of one node, and of one device to another node.
        overlap: share of the backward pass behind which communication can hide, in [0, 1].
        price: of a node's hour.
    """

    nodes: int
    devices: int
    flops: float
    efficiency: float
    memory_bytes: float
    inside: Link
    between: Link
    overlap: float = 0.0
    price: float = 0.0

    @property
    def all_devices(self) -> int:
        """Devices of all nodes."""
        return self.nodes * self.devices


@dataclass(frozen=True)
class Layout:
    """How a model is shared out.

    Attributes:
        pipeline: parts that the model is cut into, one a device; the devices over the parts are the replicas.
        stage: of ZeRO, 0 to 3, among the replicas of a part (Rajbhandari et al. 2020, arXiv:1910.02054).
        samples: of a micro-batch, on each replica.
        parts: micro-batches of a step.
        recompute: whether blocks are computed again in the backward pass instead of keeping what they need (Chen et al.
            2016, arXiv:1604.06174): a third more operations.
    """

    pipeline: int = 1
    stage: int = 0
    samples: int = 1
    parts: int = 1
    recompute: bool = False


@dataclass(frozen=True)
class Step:
    """A simulated step.

    Attributes:
        layout, replicas: how the model was shared out, and its copies.
        seconds: of the step; `compute`, `bubble` and `exposed` are its parts.
        compute: seconds in which a device multiplies, or sends to the next part.
        bubble: seconds in which it waits for other parts of the pipeline.
        exposed: seconds in which it waits for other replicas; they communicate for `communication` seconds in all.
        memory: what each device holds of weights, gradients, states, activations, in this order, bytes.
        speed: FLOP per second of all devices together that the model needed, what is computed again not counted.
        utilisation: that over what all devices could do at most.
    """

    layout: Layout
    replicas: int
    seconds: float
    compute: float
    bubble: float
    communication: float
    exposed: float
    memory: tuple[float, float, float, float]
    speed: float
    utilisation: float

    @property
    def memory_bytes(self) -> float:
        """What a device holds in all."""
        return sum(self.memory)


def simulate(work: Work, hardware: Hardware, layout: Layout) -> Step:
    """One step of a model on some machines.

    Raises:
        UsageError: the layout does not go with the model or the machines.
    """
    _check(work, hardware, layout)
    replicas, p, m = hardware.all_devices // layout.pipeline, layout.pipeline, layout.parts
    forward = work.forward_flop * layout.samples / p / (hardware.flops * hardware.efficiency)
    backward = forward * (3 if layout.recompute else 2)
    hop = hardware.inside if hardware.all_devices <= hardware.devices else hardware.between
    sent = 2 * hop.send(work.boundary_bytes * layout.samples) if p > 1 else 0.0
    each = forward + backward + sent
    communication = _communication(work, hardware, layout, replicas)
    exposed = max(0.0, communication - hardware.overlap * m * backward)
    seconds = (m + p - 1) * each + exposed
    flop = 3 * work.forward_flop * layout.samples * m * replicas
    return Step(
        layout=layout,
        replicas=replicas,
        seconds=seconds,
        compute=m * each,
        bubble=(p - 1) * each,  # (p - 1)/(m + p - 1) of the pipeline's time (Narayanan et al. 2021, section 2.2)
        communication=communication,
        exposed=exposed,
        memory=footprint(work, layout).parts(layout.stage, replicas),
        speed=flop / seconds,
        utilisation=flop / seconds / (hardware.flops * hardware.all_devices),
    )


def _check(work: Work, hardware: Hardware, layout: Layout) -> None:
    p = layout.pipeline
    if p < 1 or hardware.all_devices % p or p > work.blocks:
        raise UsageError(
            f"a pipeline of {p} parts for {work.blocks} blocks on {hardware.all_devices} devices",
            hint="the parts divide the devices, and are no more than the blocks",
        )
    if not (0 < hardware.efficiency <= 1 and 0 <= hardware.overlap <= 1 and layout.stage in (0, 1, 2, 3)):
        raise UsageError(
            f"efficiency {hardware.efficiency:g}, overlap {hardware.overlap:g}, stage {layout.stage}",
            hint="efficiency is in (0, 1], overlap in [0, 1], and the stage of ZeRO is 0, 1, 2 or 3",
        )


def _communication(work: Work, hardware: Hardware, layout: Layout, replicas: int) -> float:
    """Seconds of a step in which the replicas of a part exchange gradients and weights.

    Up to stage 2 a step sends as much as one all-reduce. With stage 3 every micro-batch gathers weights twice, for its
    forward and its backward pass, and scatters its gradients (Rajbhandari et al. 2020, section 7; Zhao et al. 2023,
    arXiv:2304.11277, section 3), block by block.
    """
    link = hardware.inside if replicas * layout.pipeline <= hardware.devices else hardware.between
    params = work.params / layout.pipeline
    if layout.stage < 3:
        return link.all_reduce(params * work.gradient_bytes, replicas)
    blocks = max(1, work.blocks // layout.pipeline)
    gather = link.all_gather(params * work.weight_bytes / blocks, replicas)
    scatter = link.reduce_scatter(params * work.gradient_bytes / blocks, replicas)
    return layout.parts * blocks * (2 * gather + scatter)


def footprint(work: Work, layout: Layout) -> Footprint:
    """What a step holds of one part of the pipeline; its first device has the most micro-batches under way."""
    params, p = work.params / layout.pipeline, layout.pipeline
    under_way = layout.samples * min(p, layout.parts) / p
    if layout.recompute:
        activations = work.kept_bytes * under_way + work.activation_bytes * layout.samples / work.blocks
    else:
        activations = work.activation_bytes * under_way
    return Footprint(
        weights=params * work.weight_bytes,
        gradients=params * work.gradient_bytes,
        states=params * work.state_bytes,
        activations=activations,
        block=work.params * work.weight_bytes / work.blocks,
    )


def best(work: Work, hardware: Hardware, batch: int) -> Step:
    """The fastest layout that fits, of all pipelines, stages, sizes of micro-batches, with and without recomputing.

    Args:
        batch: samples of a step, on all replicas together.

    Raises:
        BudgetError: none fits.
    """
    steps = [simulate(work, hardware, layout) for layout in layouts(work, hardware, batch)]
    fitting = [step for step in steps if step.memory_bytes <= FITS * hardware.memory_bytes]
    if not fitting:
        least = min((step.memory_bytes for step in steps), default=float("inf"))
        raise BudgetError(
            f"no way to share the model out fits {hardware.memory_bytes / 1e9:.3g} GB a device: the least is "
            f"{least / 1e9:.3g} GB",
            hint="take more devices, devices with more memory, or a batch that they divide",
        )
    return min(fitting, key=lambda step: (step.seconds, step.layout.pipeline, step.layout.stage))


def layouts(work: Work, hardware: Hardware, batch: int) -> Iterator[Layout]:
    """All layouts whose replicas share a batch evenly."""
    devices = hardware.all_devices
    for pipeline in divisors(min(work.blocks, devices), of=devices):
        share, left = divmod(batch, devices // pipeline)
        for samples in divisors(share, of=share) if share and not left else ():
            for stage in range(4):
                for recompute in (False, True) if work.kept_bytes else (False,):
                    yield Layout(pipeline, stage, samples, share // samples, recompute)


def divisors(most: int, *, of: int) -> Sequence[int]:
    """The numbers up to `most` that divide another."""
    return [number for number in range(1, most + 1) if of % number == 0]


__all__ = ["Hardware", "Layout", "Step", "best", "footprint", "layouts", "simulate"]
