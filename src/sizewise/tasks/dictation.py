"""Utterances to write down word by word, each word from the sound and from the words before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sizewise.padding import END, framed, pad
from sizewise.records import Reading
from sizewise.tasks import utterances
from sizewise.tasks.task import Split, Task, make_task


def load(path: Path, reading: Reading) -> Task:
    """The data of `utterances.load`, of which a decoder says one word after the other, where that task's models find
    all words at once by connectionist temporal classification. Splits and words are the same, and so is the error rate.

    Tokens are padding, a target's first and last, and from number 3 the words in alphabetical order.

    Raises:
        DataError, MissingExtraError: as `utterances.load`.
    """
    task = utterances.load(path, reading)
    steps = task.train.y.shape[1], task.validation.y.shape[1], task.test.y.shape[1]
    signature = replace(
        task.signature, problem="dictation", outputs=task.signature.outputs + END, target_steps=max(steps) + 2
    )
    splits = [_split(split, signature.target_steps) for split in (task.train, task.validation, task.test)]
    classes = ("",) * END + task.classes
    return make_task(
        task.name,
        task.source,
        classes,
        *splits,
        signature=signature,
        skipped=task.skipped,
        files=task.files,
    )


def _split(split: Split, steps: int) -> Split:
    return Split(split.x, pad([framed(row[row > 0] + END) for row in split.y], steps))
