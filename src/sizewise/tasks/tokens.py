"""Texts to token ids and back, by a tokenizer trained on the training split; the only file that knows `tokenizers`.

Byte-pair encoding of bytes (Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019): no character is unknown to
it. Ids 0, 1 and 2 are padding and a target's first and last token, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sizewise.errors import UsageError, extra
from sizewise.records import Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[BEGIN]", "[END]")
"""Ids 0, 1 and 2: `padding.PAD`, `padding.BEGIN` and `padding.END`."""

SMALLEST = len(SPECIAL) + 256
"""Tokens of a tokenizer that merges nothing: every byte is one."""

BEGINS_WORD = "Ġ"
"""How the tokenizer writes a space: a token that begins with it begins a word, and no token has one inside."""

_NEEDED_FOR = "turning text into tokens"


def vocabulary_of(reading: Reading, usual: int) -> int:
    """Most tokens of a tokenizer: what the user says, or what is usual.

    Raises:
        UsageError: fewer than `SMALLEST`.
    """
    size = reading.vocabulary or usual
    if size < SMALLEST:
        raise UsageError(
            f"reading.vocabulary is {size}", hint=f"{SMALLEST} is the least: one token a byte, and three special ones"
        )
    return size


@dataclass(frozen=True)
class Tokens:
    """A trained tokenizer."""

    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        self.tokenizer.encode_special_tokens = True  # a text that says "[PAD]" means these five characters

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, *, lower: bool = False) -> Tokens:
        """Learn a vocabulary of at most `vocabulary` >= `SMALLEST` tokens from the training split's texts.

        Args:
            lower: read capital letters as small ones; a text that is put together again has none.

        Raises:
            MissingExtraError: `tokenizers` is not installed.
        """
        with extra("text", needed_for=_NEEDED_FOR):
            from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lower else [])]
        made.normalizer = normalizers.Sequence(steps)
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        made.train_from_iterator(texts, trainer)
        return cls(made)

    @classmethod
    def read(cls, data: bytes) -> Tokens:
        """The tokenizer that `write` gave."""
        with extra("text", needed_for=_NEEDED_FOR):
            from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(data.decode()))

    def write(self) -> bytes:
        """The tokenizer as JSON, which other tools read too."""
        return str(self.tokenizer.to_str(pretty=True)).encode()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every token as the tokenizer writes it, by id."""
        return tuple(str(self.tokenizer.id_to_token(i)) for i in range(self.tokenizer.get_vocab_size()))

    def ids(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Ids of each text, shapes (tokens,), without first and last token."""
        return [np.array(found.ids, np.int64) for found in self.tokenizer.encode_batch(list(texts))]

    def text(self, ids: NDArray[Any]) -> str:
        """The text of ids (tokens,); padding, first and last tokens are left out."""
        return str(self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))
