"""Recurrent networks: LSTM (Hochreiter & Schmidhuber 1997) and GRU (Cho et al. 2014, arXiv:1406.1078), in one or both
directions, for texts and series.

Two layers, or as many as are asked for (`lstm:3`), each of `width` units a direction. Recurrent weights start
orthogonal (Saxe et al. 2014, arXiv:1312.6120), so that signals neither vanish nor explode at first; input weights from
Glorot's uniform scheme (Glorot & Bengio 2010); the LSTM's forget gates with a bias of 1, so that it remembers
(Jozefowicz et al. 2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sizewise.families.family import refuse
from sizewise.families.parts import Entry, Exit, entered, readable
from sizewise.records import Signature

LAYERS = 2
DROPOUT = 0.1


class Layer(nn.Module):
    """One recurrent layer (batch, steps, in) to (batch, steps, directions·width).

    The backward direction reads every sequence from its own last step, so that padding never comes before it.
    """

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], inputs: int, width: int, directions: int) -> None:
        super().__init__()
        self.forth = _started(kind(inputs, width, batch_first=True))
        self.back = _started(kind(inputs, width, batch_first=True)) if directions == 2 else None

    def forward(self, x_BTW: Tensor, there_BT: Tensor) -> Tensor:
        forth: Tensor = self.forth(x_BTW)[0]
        if self.back is None:
            return forth
        turned = _turned(there_BT).unsqueeze(2)
        back: Tensor = self.back(torch.gather(x_BTW, 1, turned.expand(-1, -1, x_BTW.shape[2])))[0]
        return torch.cat([forth, torch.gather(back, 1, turned.expand(-1, -1, back.shape[2]))], dim=2)


def _turned(there_BT: Tensor) -> Tensor:
    """Indices (batch, steps) that reverse each sequence within its length and leave its padding where it is."""
    steps = torch.arange(there_BT.shape[1], device=there_BT.device).unsqueeze(0)
    last = there_BT.sum(1, keepdim=True) - 1
    return torch.where(there_BT, last - steps, steps)


class Rnn(nn.Module):
    """Texts (batch, steps) or series (batch, steps, channels) to the answers of a problem."""

    def __init__(
        self, width: int, task: Signature, kind: type[nn.LSTM] | type[nn.GRU], directions: int, layers: int
    ) -> None:
        super().__init__()
        self.task = task
        self.entry = Entry(width, task)
        widths = [width, *[directions * width] * layers]
        self.layers = nn.ModuleList(Layer(kind, inputs, width, directions) for inputs in widths[:-1])
        self.dropout = nn.Dropout(DROPOUT)
        self.exit = Exit(widths[-1], task)

    def forward(self, x: Tensor) -> Tensor:
        there = entered(x, self.task)
        hidden = self.entry(x)
        for layer in self.layers:
            hidden = layer(self.dropout(hidden), there)
        answers: Tensor = self.exit(self.dropout(hidden), there)
        return answers


def lstm(width: int, task: Signature, layers: int = LAYERS) -> nn.Module:
    """LSTM in one direction: for language models, and for answers while the sequence still goes on."""
    return _build("lstm", width, task, nn.LSTM, 1, layers)


def gru(width: int, task: Signature, layers: int = LAYERS) -> nn.Module:
    """GRU in one direction; three quarters of the LSTM's weights."""
    return _build("gru", width, task, nn.GRU, 1, layers)


def bilstm(width: int, task: Signature, layers: int = LAYERS) -> nn.Module:
    """LSTM in both directions: every step knows the whole sequence."""
    return _build("bilstm", width, task, nn.LSTM, 2, layers)


def bigru(width: int, task: Signature, layers: int = LAYERS) -> nn.Module:
    """GRU in both directions."""
    return _build("bigru", width, task, nn.GRU, 2, layers)


def _build(
    name: str, width: int, task: Signature, kind: type[nn.LSTM] | type[nn.GRU], directions: int, layers: int
) -> nn.Module:
    if not readable(task):
        raise refuse(name, task, "texts or series to classify, tag or transcribe")
    if task.problem == "language modelling" and directions == 2:
        raise refuse(name, task, "another problem: what reads backwards has seen the next token; take lstm or gru")
    return Rnn(width, task, kind, directions, layers)


def _started(layer: nn.LSTM | nn.GRU) -> nn.LSTM | nn.GRU:
    """The layer with the initial weights that the module's docstring says."""
    width, weights = layer.hidden_size, dict(layer.named_parameters())
    for gate in torch.split(weights["weight_hh_l0"].data, width):
        nn.init.orthogonal_(gate)
    for gate in torch.split(weights["weight_ih_l0"].data, width):
        nn.init.xavier_uniform_(gate)
    for bias in (weights["bias_ih_l0"], weights["bias_hh_l0"]):
        nn.init.zeros_(bias)
    if isinstance(layer, nn.LSTM):
        nn.init.ones_(weights["bias_ih_l0"].data[width : 2 * width])
    return layer


__all__ = ["Rnn", "bigru", "bilstm", "gru", "lstm"]
