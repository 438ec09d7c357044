"""Transformers (Vaswani et al. 2017, arXiv:1706.03762): encoder, decoder, and an encoder of image patches.

One dial: `width` is that of the residual stream. Depth, where none is asked for (`transformer:4`), follows it at a
ratio of 32, in the middle of the range in which the loss hardly depends on it (Kaplan et al. 2020, arXiv:2001.08361,
figure 5), and is at least 2. Heads have 16 dimensions each and so many that together they are as wide as the stream;
the hidden layer has 4·width units.
Layers normalise what they read (Xiong et al. 2020, arXiv:2002.04745). Weights start from Glorot & Bengio's uniform
distribution (2010), since the fixed standard deviation of 0.02 of wide models leaves narrow ones without attention for
many epochs; those that write into the stream start smaller by √(2·depth) (Radford et al. 2019).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.families.parts import Entry, Exit, entered, readable, sines
from sizewise.records import Signature

WIDTH_OVER_DEPTH = 32
FEWEST_LAYERS = 2
HEAD = 16
DROPOUT = 0.1
PATCHES = 8
"""Patches along the shorter side of an image."""


def depth(width: int) -> int:
    """Layers of a Transformer of this width."""
    return max(FEWEST_LAYERS, round(width / WIDTH_OVER_DEPTH))


class Attention(nn.Module):
    """Attention of `queries` (batch, steps, width) to keys and values `held` (batch, its steps, 2·heads·16)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, round(width / HEAD))
        self.query = nn.Linear(width, self.heads * HEAD)
        self.key_value = nn.Linear(width, 2 * self.heads * HEAD)
        self.out = nn.Linear(self.heads * HEAD, width)

    def forward(self, queries_BTW: Tensor, held_BSK: Tensor, allowed: Tensor | None, *, causal: bool = False) -> Tensor:
        """`allowed` says, broadcast to (batch, heads, steps, its steps), what may be attended to; None is all."""
        query = self._split(self.query(queries_BTW))
        key, value = map(self._split, held_BSK.chunk(2, dim=2))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def alone(self, query_BHW: Tensor, held_BHSK: Tensor) -> Tensor:
        """Of single steps (batch, hypotheses, width), each to keys and values of its own (batch, hypotheses, its steps,
        numbers). Written out, since OpenVINO 2026 gets fused attention of one step to 16 and more wrong."""
        query_BHSNC = torch.unflatten(self.query(query_BHW), -1, (self.heads, HEAD)).unsqueeze(2)
        key, value = (torch.unflatten(half, -1, (self.heads, HEAD)) for half in held_BHSK.chunk(2, dim=3))
        weight = ((query_BHSNC * key).sum(4, keepdim=True) / math.sqrt(HEAD)).softmax(dim=2)
        out: Tensor = self.out((weight * value).sum(2).flatten(2))
        return out

    def _split(self, x_BTH: Tensor) -> Tensor:
        batch, steps, _ = x_BTH.shape
        return x_BTH.view(batch, steps, self.heads, HEAD).transpose(1, 2)


class Block(nn.Module):
    """Self-attention, and the hidden layer; each adds to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.attention_norm = Attention(width), nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.hidden, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(DROPOUT)

    @property
    def writers(self) -> tuple[nn.Linear, ...]:
        """The layers whose outputs are added to the stream."""
        return self.attention.out, self.out

    def forward(self, x_BTW: Tensor, allowed: Tensor | None, *, causal: bool = False) -> Tensor:
        return self.finished(self.attended(x_BTW, allowed, causal=causal))

    def attended(self, x_BTW: Tensor, allowed: Tensor | None, *, causal: bool = False) -> Tensor:
        """After self-attention."""
        normed = self.attention_norm(x_BTW)
        mixed: Tensor = self.dropout(self.attention(normed, self.attention.key_value(normed), allowed, causal=causal))
        return x_BTW + mixed

    def finished(self, x_BTW: Tensor) -> Tensor:
        """After the hidden layer."""
        hidden: Tensor = self.dropout(self.out(F.gelu(self.hidden(self.norm(x_BTW)))))
        return x_BTW + hidden


class Stack(nn.Module):
    """Blocks on vectors that know their places, and a last normalisation."""

    positions: Tensor

    def __init__(self, width: int, steps: int, layers: int, block: type[Block] = Block) -> None:
        super().__init__()
        self.register_buffer("positions", sines(steps, width), persistent=False)
        self.blocks = nn.ModuleList(block(width) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(DROPOUT)
        self.apply(_start)
        scale = 1 / math.sqrt(2 * len(self.blocks))
        for made in self.blocks:
            assert isinstance(made, Block)
            for writer in made.writers:
                nn.init.xavier_uniform_(writer.weight, gain=scale)

    def placed(self, x_BTW: Tensor) -> Tensor:
        """Vectors with their places."""
        out: Tensor = self.dropout(x_BTW + self.positions[: x_BTW.shape[1]])
        return out

    def forward(self, x_BTW: Tensor, allowed: Tensor | None, *, causal: bool = False) -> Tensor:
        x_BTW = self.placed(x_BTW)
        for block in self.blocks:
            x_BTW = block(x_BTW, allowed, causal=causal)
        normed: Tensor = self.norm(x_BTW)
        return normed


class Transformer(nn.Module):
    """Texts (batch, steps) or series (batch, steps, channels) to the answers of a problem.

    A language model sees what came before, all others the whole sequence.
    """

    def __init__(self, width: int, task: Signature, layers: int | None = None) -> None:
        super().__init__()
        self.task, self.causal = task, task.problem == "language modelling"
        self.entry, self.stack = Entry(width, task), Stack(width, task.input_shape[0], layers or depth(width))
        table = self.entry.layer.weight if self.causal else None
        assert table is None or isinstance(table, nn.Parameter)
        self.exit = Exit(width, task, tied=table)
        self.scale = math.sqrt(width) if task.vocabulary else 1.0

    def forward(self, x: Tensor) -> Tensor:
        there = entered(x, self.task)
        # What comes after a text does not reach back into it: a causal model needs no mask of the padding.
        allowed = reachable(there) if self.task.dynamic and not self.causal else None
        answers: Tensor = self.exit(self.stack(self.scale * self.entry(x), allowed, causal=self.causal), there)
        return answers


class Vit(nn.Module):
    """Images (batch, channels, height, width) to answers, as sequences of patches (Dosovitskiy et al. 2021,
    arXiv:2010.11929); the answer is read from the patches' mean (Beyer et al. 2022, arXiv:2205.01580)."""

    def __init__(self, width: int, task: Signature, layers: int | None = None) -> None:
        super().__init__()
        channels, high, wide = task.input_shape
        side = max(1, min(high, wide) // PATCHES)
        self.patches = nn.Conv2d(channels, width, kernel_size=side, stride=side)
        self.stack = Stack(width, (high // side) * (wide // side), layers or depth(width))
        self.head = nn.Linear(width, task.outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        patches = self.patches(x_BCHW).flatten(2).transpose(1, 2)
        answers: Tensor = self.head(self.stack(patches, None).mean(1))
        return answers


def reachable(there_BT: Tensor) -> Tensor:
    """What may be attended to, (batch, 1, 1, steps): steps that there are, and the first, lest an empty text have
    nothing to look at."""
    first = torch.arange(there_BT.shape[1], device=there_BT.device) == 0
    return (there_BT | first)[:, None, None, :]


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def transformer(width: int, task: Signature, layers: int | None = None) -> nn.Module:
    """Encoder for classes, tags and transcripts, decoder for language models.

    Args:
        layers: None is as many as its `depth`.

    Raises:
        UsageError: samples are no texts or series, or there is a second sequence.
    """
    if not readable(task):
        raise refuse("transformer", task, "texts or series to classify, tag, transcribe or continue")
    return Transformer(width, task, layers)


def vit(width: int, task: Signature, layers: int | None = None) -> nn.Module:
    """Encoder of image patches, eight along the shorter side.

    Args:
        layers: None is as many as its `depth`.

    Raises:
        UsageError: samples are no images to classify or measure.
    """
    if task.layout != "image" or task.problem not in ("classification", "regression"):
        raise refuse("vit", task, "classification or regression of images")
    return Vit(width, task, layers)
