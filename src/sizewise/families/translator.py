"""Encoder and decoder (Vaswani et al. 2017, arXiv:1706.03762): what is said in a sentence or a sound, token by token.

Its parts are those of the other Transformers. The encoder reads the source once. The decoder is asked in two ways that
give the same: for all steps of a target at once in training, and step by step in use, when the keys and values of the
steps before are handed back to it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.families.parts import present
from sizewise.families.transformer import FEWEST_LAYERS, Attention, Block, Stack, depth, reachable
from sizewise.padding import mask
from sizewise.records import Signature


class Crossed(Block):
    """A block of a decoder: between the two, attention to the keys and values of a source."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.cross, self.cross_norm = Attention(width), nn.LayerNorm(width)

    @property
    def writers(self) -> tuple[nn.Linear, ...]:
        return self.attention.out, self.out, self.cross.out

    def decoded(self, x_BTW: Tensor, held_BSK: Tensor, allowed: Tensor) -> Tensor:
        """All steps of a target, each of which sees those before it."""
        return self.finished(self.crossed(self.attended(x_BTW, None, causal=True), held_BSK, allowed))

    def stepped(self, x_BHW: Tensor, past_BHTK: Tensor, held_BSK: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
        """One step of several hypotheses of each source, and their keys and values (batch, hypotheses, steps, numbers)
        with this step. The hypotheses ask the one source side by side, as the steps of a target do in training."""
        normed = self.attention_norm(x_BHW)
        past_BHTK = torch.cat([past_BHTK, self.attention.key_value(normed).unsqueeze(2)], dim=2)
        mixed = self.attention.alone(normed, past_BHTK)
        return self.finished(self.crossed(x_BHW + mixed, held_BSK, allowed)), past_BHTK

    def crossed(self, x_BTW: Tensor, held_BSK: Tensor, allowed: Tensor) -> Tensor:
        """After attention to the source."""
        mixed: Tensor = self.dropout(self.cross(self.cross_norm(x_BTW), held_BSK, allowed))
        return x_BTW + mixed


class Stem(nn.Module):
    """Features of sound (batch, steps, channels) to vectors (batch, steps / 4 rounded up, width), and where they are.

    Two convolutions of three steps with GELU (Radford et al. 2022, arXiv:2212.04356, section 2.2). There the second one
    alone takes every other step; here both do, since attention to steps of 40 ms costs a quarter.
    """

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.task = task
        self.convolutions = nn.ModuleList(nn.Conv1d(n, width, 3, 2, padding=1) for n in (task.channels, width))

    def forward(self, x_BSC: Tensor) -> tuple[Tensor, Tensor]:
        x_BCS, there_BS = x_BSC.transpose(1, 2), present(x_BSC, self.task)
        for convolution in self.convolutions:
            there_BS = there_BS[:, ::2]
            x_BCS = F.gelu(convolution(x_BCS)) * there_BS[:, None]  # what is not there must not reach what is
        return x_BCS.transpose(1, 2), there_BS


class Words(nn.Embedding):
    """Tokens (batch, steps) to vectors (batch, steps, width) that weigh as much as their places.

    The table's entries start with variance 1/width (Vaswani et al. 2017, section 3.4).
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__(vocabulary, width)
        self.scale = math.sqrt(width)
        nn.init.normal_(self.weight, std=1 / self.scale)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.scale * super().forward(ids_BT)


class Translator(nn.Module):
    """Sources, sentences (batch, steps) or sounds (batch, steps, channels), and the beginnings of targets (batch,
    target steps) to the targets' next tokens.

    The target's token vectors are its output layer too. Encoder and decoder share the depth that belongs to the width,
    at least 2 layers each: at equal cost, wide ones train faster on a CPU than deep ones.
    """

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.source = Words(task.vocabulary, width) if task.vocabulary else Stem(width, task)
        self.target = Words(task.outputs, width)
        layers = max(FEWEST_LAYERS, depth(width) // 2)
        self.encoder = Stack(width, task.input_shape[0], layers)
        self.decoder = Stack(width, task.target_steps, layers, Crossed)
        self.head = nn.Linear(width, task.outputs, bias=False)
        self.head.weight = self.target.weight

    def encode(self, source: Tensor) -> Tensor:
        """Memory (batch, its steps, numbers) of the source: the keys and values that each layer of the decoder attends
        to, one layer beside the other, and last, as in every series, whether there is a step."""
        x_BSW, there_BS = self.source(source) if isinstance(self.source, Stem) else (self.source(source), mask(source))
        x_BSW = self.encoder(x_BSW, reachable(there_BS))
        held = [block.cross.key_value(x_BSW) for block in self.blocks]
        return torch.cat([*held, there_BS.unsqueeze(2).to(x_BSW.dtype)], dim=2)

    def decode(self, memory_BSM: Tensor, target_BT: Tensor) -> Tensor:
        """Vectors (batch, target steps, width) that `head` reads the next tokens from."""
        x_BTW, allowed = self.decoder.placed(self.target(target_BT)), reachable(mask(memory_BSM))
        for block, held_BSK in zip(self.blocks, self._by_layer(memory_BSM[..., :-1]), strict=True):
            x_BTW = block.decoded(x_BTW, held_BSK, allowed)
        normed: Tensor = self.decoder.norm(x_BTW)
        return normed

    def step(self, token_BH: Tensor, memory_BSM: Tensor, past_BHTP: Tensor) -> tuple[Tensor, Tensor]:
        """The next tokens of several hypotheses of each source, from what is kept of those before.

        Args:
            token_BH: the last token of each hypothesis (batch, hypotheses).
            past_BHTP: keys and values of the tokens before it, of each layer one beside the other; memory's numbers are
                as many and one more.

        Returns:
            logits (batch, hypotheses, tokens), and the past with this step.
        """
        x_BHW, allowed = self.target(token_BH) + self._place(past_BHTP), reachable(mask(memory_BSM))
        kept, layers = [], zip(self._by_layer(memory_BSM[..., :-1]), self._by_layer(past_BHTP), strict=True)
        for block, (held_BSK, past_BHTK) in zip(self.blocks, layers, strict=True):
            x_BHW, past_BHTK = block.stepped(x_BHW, past_BHTK, held_BSK, allowed)
            kept.append(past_BHTK)
        logits: Tensor = self.head(self.decoder.norm(x_BHW))
        return logits, torch.cat(kept, dim=3)

    def _place(self, past_BHTP: Tensor) -> Tensor:
        """Where the step after the past is, (1, width)."""
        last = torch.full((1,), past_BHTP.shape[2], device=past_BHTP.device)  # looked up, since a slice would be fixed
        return self.decoder.positions[last]

    def forward(self, source: Tensor, target_BT: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decode(self.encode(source), target_BT))
        return logits

    @property
    def blocks(self) -> list[Crossed]:
        """The decoder's layers."""
        return [block for block in self.decoder.blocks if isinstance(block, Crossed)]

    def _by_layer(self, held: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of each layer, out of those of all."""
        return held.chunk(len(self.decoder.blocks), dim=-1)


def translator(width: int, task: Signature) -> nn.Module:
    """Encoder and decoder, for sentences from sentences and words from sound.

    Raises:
        UsageError: answers are not made token by token, or there are neither tokens nor sound to make them from.
    """
    if not task.autoregressive or task.layout not in ("tokens", "series"):
        raise refuse("translator", task, "translation, or sound whose words are written down one by one: `dictation`")
    return Translator(width, task)
