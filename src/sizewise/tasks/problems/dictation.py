"""Words from sound, one after the other. Answers and targets are ids; what is no word has no name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from sizewise.records import Metric
from sizewise.tasks.problems.problem import Judged
from sizewise.tasks.problems.sequence import SequenceToSequence
from sizewise.tasks.problems.transcription import METRICS, judged, spoken

if TYPE_CHECKING:
    from sizewise.tasks.task import Split


class Dictation(SequenceToSequence):
    """Answers against what was said, by the error rate of words, as transcripts are."""

    def metrics(self) -> tuple[Metric, ...]:
        return METRICS

    def judge(self, answers: NDArray[Any], split: Split) -> Judged:
        return judged(spoken(answers, self.classes), spoken(split.y, self.classes))
