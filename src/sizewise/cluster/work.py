"""What training a model is to a machine: operations, bytes to hold and bytes to move, for one sample or sequence."""

from __future__ import annotations

from dataclasses import dataclass

from sizewise.errors import UsageError


@dataclass(frozen=True)
class Work:
    """A model in training, whatever it is made of.

    Attributes:
        params: trainable parameters.
        blocks: equal parts that a pipeline can be cut between, and that are whole one at a time where weights are
            sharded.
        forward_flop: floating-point operations of one sample's forward pass; the backward pass has twice as many
            (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).
        weight_bytes, gradient_bytes: of one parameter, as they are held and sent.
        state_bytes: that the optimizer holds of one parameter, copies of weights in more bits included.
        activation_bytes: that the backward pass of one sample needs.
        kept_bytes: the same where blocks are computed again: what goes into each block.
        boundary_bytes: that one sample sends from one part of a pipeline to the next.
    """

    params: int
    blocks: int
    forward_flop: float
    weight_bytes: float
    gradient_bytes: float
    state_bytes: float
    activation_bytes: float
    kept_bytes: float = 0.0
    boundary_bytes: float = 0.0


@dataclass(frozen=True)
class Transformer:
    """A decoder of text as it is usually trained at scale: in 16 bits, with Adam in 32.

    Attributes:
        layers, width, heads: of the residual stream; the hidden layer has 4·width units.
        steps: tokens of a sequence.
        vocabulary: tokens that there are; their table is the output layer, too.
        fused_attention: attention whose weights are computed again and never kept (Dao et al. 2022, arXiv:2205.14135).
        weight_bytes, gradient_bytes, state_bytes: of one parameter; those of mixed precision with Adam: 2, 2 and 12
            (Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1).
    """

    layers: int
    width: int
    heads: int
    steps: int
    vocabulary: int
    fused_attention: bool = True
    weight_bytes: float = 2.0
    gradient_bytes: float = 2.0
    state_bytes: float = 12.0

    def work(self) -> Work:
        """The same for one sequence.

        Parameters are 12·layers·width²·(1 + 13/(12·width) + (vocabulary + steps)/(12·layers·width)) (Narayanan et al.
        2021, arXiv:2104.04473, equation 2). A token's forward pass is 2 operations a parameter that is multiplied, and
        4·layers·width·steps of attention (Chowdhery et al. 2022, arXiv:2204.02311, appendix B). A layer keeps
        steps·width·(34 + 5·heads·steps/width) bytes of a sequence, the second part in attention that is not fused
        (Korthikanti et al. 2022, arXiv:2205.05198, equation 1), or 2·steps·width where it is computed again.

        Raises:
            UsageError: a number that is not above 0.
        """
        numbers = (self.layers, self.width, self.heads, self.steps, self.vocabulary)
        if min(numbers) < 1:
            raise UsageError(f"a Transformer of {numbers}", hint="layers, width, heads, steps, vocabulary: all above 0")
        h, s, layers = self.width, self.steps, self.layers
        multiplied = 12 * layers * h * h + self.vocabulary * h
        attention = 0.0 if self.fused_attention else 5.0 * self.heads * s / h
        return Work(
            params=multiplied + 13 * layers * h + s * h,
            blocks=layers,
            forward_flop=float(s * (2 * multiplied + 4 * layers * h * s)),
            weight_bytes=self.weight_bytes,
            gradient_bytes=self.gradient_bytes,
            state_bytes=self.state_bytes,
            activation_bytes=layers * s * h * (34 + attention),
            kept_bytes=2.0 * layers * s * h,
            boundary_bytes=2.0 * s * h,
        )


__all__ = ["Transformer", "Work"]
