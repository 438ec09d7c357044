"""Models that users might bring: of one size, of every kind of layer, and some that break a promise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sizewise.padding import mask
from sizewise.records import Signature


class Residual(nn.Module):
    """Two convolutions, the second one in groups, beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1, groups=g) for g in (1, 4))
        self.norm, self.last_norm = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.last_norm(self.second(torch.relu(self.norm(self.first(x))))))


def resnet(task: Signature) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(task.channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), Residual(32),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), Residual(64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, task.outputs),
    )  # fmt: skip


fixed = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10)
)


class Encoder(nn.Module):
    """PyTorch's own Transformer encoder, its answer read from the steps that there are."""

    def __init__(self, task: Signature) -> None:
        super().__init__()
        self.tokens = nn.Embedding(task.vocabulary, 64)
        self.places = nn.Parameter(torch.randn(1, task.input_shape[0], 64) * 0.02)
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        there = mask(x)
        hidden = self.encoder(self.tokens(x) + self.places[:, : x.shape[1]], src_key_padding_mask=~there)
        weight = there.unsqueeze(2).to(hidden.dtype)
        logits: Tensor = self.head((hidden * weight).sum(1) / weight.sum(1))
        return logits


class Recurrent(nn.Module):
    """Two layers of an LSTM in both directions, one layer object."""

    def __init__(self, task: Signature) -> None:
        super().__init__()
        self.tokens = nn.Embedding(task.vocabulary, 48)
        self.layers = nn.LSTM(48, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.tokens(x))[0].mean(1))
        return logits


class LastState(nn.Module):
    """A GRU whose answer is read from its last state."""

    def __init__(self, task: Signature) -> None:
        super().__init__()
        self.entry, self.layer = nn.Linear(task.channels, 48), nn.GRU(48, 64, batch_first=True)
        self.head = nn.Linear(64, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.entry(x))[1][-1])
        return logits


def our_transformer(task: Signature) -> nn.Module:
    from sizewise.families.transformer import Transformer

    return Transformer(64, task)


def our_bilstm(task: Signature) -> nn.Module:
    from sizewise.families.rnn import bilstm

    return bilstm(64, task)


def bert(task: Signature) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    return _wrapped(BertForSequenceClassification, BertConfig, task, vocab_size=task.vocabulary, **_SMALL)


def vit(task: Signature) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    shape = {"num_channels": task.channels, "image_size": task.input_shape[1], "patch_size": 7}
    return _wrapped(ViTForImageClassification, ViTConfig, task, **shape, **_SMALL)


def convnext(task: Signature) -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    stages = {"num_stages": 2, "patch_size": 2, "hidden_sizes": [32, 64], "depths": [1, 2]}
    return _wrapped(ConvNextForImageClassification, ConvNextConfig, task, num_channels=task.channels, **stages)


_SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128}


def _wrapped(kind: Any, config: Any, task: Signature, **settings: Any) -> nn.Module:
    from sizewise.families.hub import Wrapped

    return Wrapped(kind(config(num_labels=task.outputs, **settings)), task)


def perceptron(width: int, task: Signature) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, task.outputs))


def too_many_answers(width: int, task: Signature) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, task.outputs + 1))


def one_size(width: int, task: Signature) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.outputs))


def own_dice(width: int, task: Signature) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, task.outputs))
    if module[1].weight.device.type != "meta":
        dice = torch.Generator()
        dice.seed()
        nn.init.normal_(module[1].weight, generator=dice)
    return module


class _Stuck(nn.Module):
    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.layer = nn.Linear(64, width)
        self.head = nn.Linear(width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(x.flatten(1)).detach())
        return logits * 0


def stuck(width: int, task: Signature) -> nn.Module:
    return _Stuck(width, task)


class _Branching(nn.Module):
    """What it does depends on the values, in Python, so that it has no graph."""

    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(64, width), nn.Linear(width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.layer(x.flatten(1)))
        logits: Tensor = self.head(hidden if float(hidden.sum()) > 0 else -hidden)
        return logits


def branching(width: int, task: Signature) -> nn.Module:
    return _Branching(width, task)


class _SeesPadding(nn.Module):
    def __init__(self, width: int, task: Signature) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(task.vocabulary, width), nn.Linear(width, task.outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tokens(x).mean(1))
        return logits


def sees_padding(width: int, task: Signature) -> nn.Module:
    return _SeesPadding(width, task)
