"""From a transcriber's frames to labels, as tensor operations that every runtime has."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sizewise.tasks.problems.transcription import BLANK


class Labels(nn.Module):
    """Logits (n, frames, labels + 1) to label ids (n, frames): greedy decoding (Graves et al. 2006, section 3.2).

    The best label of each frame, repeats merged, blanks left out; filled up with 0, the blank's id.
    """

    def forward(self, logits: Tensor) -> Tensor:
        best = logits.argmax(dim=2)
        said = (best != BLANK) & (best != F.pad(best[:, :-1], (1, 0), value=-1))
        place = (said.long().cumsum(dim=1) - 1).clamp(min=0)  # of a frame that says nothing, where it adds nothing
        return (best * 0).scatter_add(1, place, best * said.long())
