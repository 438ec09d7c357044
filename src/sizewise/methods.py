"""What can be done to a trained model to make it smaller: small frozen records, and chains of them.

A method is data only: what it does lies in `compress`. A chain is a tuple of methods, applied in order, each to what
the one before left; all but quantization train a little, so that the model can recover. `prune=0.5:taylor+distil+int8`
is how a chain is written, and `parse` and `written` are each other's inverse.

Order matters: training would undo what zeros and rounded weights have gained, so only quantization follows those, and
nothing follows quantization.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sizewise.errors import UsageError

Importance = Literal["magnitude", "taylor", "hessian", "random"]
Scope = Literal["global", "uniform"]
Rule = Literal["minmax", "entropy", "percentile"]
Pattern = Literal["any", "2:4"]
Lesson = Literal["answers", "features"]
Rounding = Literal["nearest", "gptq"]


@dataclass(frozen=True)
class Narrow:
    """Cut to the family's own shape at the trial's width, so that the result is a member of the family."""

    kind: Literal["narrow"] = "narrow"


@dataclass(frozen=True)
class Prune:
    """Take away whole channels, hidden units and attention heads (Fang et al. 2023, arXiv:2301.12900).

    Attributes:
        keep: share of the parameters that stays, in (0, 1).
        importance: what goes first: what has the smallest weights (Li et al. 2017, arXiv:1608.08710), what changes the
            loss least to the first order (Molchanov et al. 2019, arXiv:1906.10771) or to the second (LeCun et al.
            1989), or whatever is drawn: the baseline that the others have to beat.
        scope: whether all layers compete ("global"), or each loses the same share ("uniform").
    """

    keep: float
    importance: Importance = "magnitude"
    scope: Scope = "global"
    kind: Literal["prune"] = "prune"


@dataclass(frozen=True)
class Shorten:
    """Take away whole layers of a stack, those first whose absence changes the loss least (Sajjad et al. 2020,
    arXiv:2004.03844; Men et al. 2024, arXiv:2403.03853).

    Attributes:
        keep: share of the layers that stays, in (0, 1); at least one does.
    """

    keep: float
    kind: Literal["shorten"] = "shorten"


@dataclass(frozen=True)
class Sparsify:
    """Set single weights to zero, the smallest of each layer, more and more of them while training goes on.

    Attributes:
        keep: share of the weights that stays, in (0, 1) (the schedule of Zhu & Gupta 2017, arXiv:1710.01878).
        pattern: whichever are smallest ("any"), or two of four neighbouring inputs, which some graphics cards skip
            (Mishra et al. 2021, arXiv:2104.08378); `keep` is then a half.
    """

    keep: float
    pattern: Pattern = "any"
    kind: Literal["sparsify"] = "sparsify"


@dataclass(frozen=True)
class QAT:
    """Quantization-aware training: weights and the inputs of layers are rounded to 8 bits on their way through the
    model, and gradients pass as if they were not (Jacob et al. 2018, arXiv:1712.05877, section 3). Quantization
    afterwards finds weights that lie on its own grid."""

    kind: Literal["qat"] = "qat"


@dataclass(frozen=True)
class Factorize:
    """Write a layer's weights as a product of two thinner ones, where that has fewer parameters.

    Attributes:
        energy: share of the squared singular values that each layer keeps, in (0, 1) (Denton et al. 2014,
            arXiv:1404.0736); it decides the ranks.
    """

    energy: float
    kind: Literal["factorize"] = "factorize"


@dataclass(frozen=True)
class Distil:
    """Learn from trained models.

    From their answers (Hinton et al. 2015, arXiv:1503.02531), the loss is (1 - weight)·hard +
    weight·temperature²·KL(teacher || student) at that temperature. Several teachers teach the mean of the probabilities
    that they would give at that temperature. From their features, which are what their last layer reads, it is
    (1 - weight)·hard + weight·(1 - CKA): the samples of a batch are to lie to each other as they do for the teachers,
    whatever the number of features (Kornblith et al. 2019, arXiv:1905.00414, equation 4; as a loss in the sense of Tung
    & Mori 2019, arXiv:1907.09682).

    Attributes:
        temperature: of the soft targets.
        weight: of what the teachers say.
        start: whether the student starts from random weights, its parent being a teacher, or from its parent's.
        teachers: keys of trained runs that teach, beside a parent that does.
    """

    temperature: float = 4.0
    weight: float = 0.7
    start: Literal["random", "parent"] = "random"
    teachers: tuple[str, ...] = ()
    lesson: Lesson = "answers"
    kind: Literal["distil"] = "distil"


@dataclass(frozen=True)
class Quantize:
    """Whole numbers in place of floating-point ones, after training.

    Attributes:
        bits: of a weight.
        rule: how the range of an activation is found from training samples, where it is fixed beforehand.
        layers: "all" that can be, or "mixed": those that become faster, but for the fewest that would change answers.
        parts: whether activations are quantized too ("all"), or "weights" alone; those of 4 bits always are alone.
        rounding: of weights alone: each to the "nearest" number, or each so that it makes up for the errors of those
            before it on training samples (GPTQ; Frantar et al. 2023, arXiv:2210.17323).
    """

    bits: Literal[4, 8] = 8
    rule: Rule = "minmax"
    layers: Literal["all", "mixed"] = "all"
    parts: Literal["all", "weights"] = "all"
    rounding: Rounding = "nearest"
    kind: Literal["quantize"] = "quantize"


Training = Narrow | Prune | Shorten | Factorize | Distil | Sparsify | QAT
"""Methods that make new weights: a trial of its own."""

Method = Training | Quantize
Chain = tuple[Method, ...]

KINDS: dict[str, type[Method]] = {
    "narrow": Narrow,
    "prune": Prune,
    "shorten": Shorten,
    "factorize": Factorize,
    "distil": Distil,
    "sparsify": Sparsify,
    "qat": QAT,
    "quantize": Quantize,
}
"""By what `kind` says, in files too."""


def parse(text: str) -> Chain:
    """The chain that is written `method+method+...`.

    Raises:
        UsageError: an unknown method or option, a number out of its range, or methods in an order that cannot be.
    """
    chain = tuple(_method(part.strip()) for part in text.split("+"))
    for method, following in itertools.pairwise(chain):
        if isinstance(method, Quantize):
            raise UsageError(
                f"{text!r} goes on after {written(method)!r}", hint="what is quantized cannot be trained: put it last"
            )
        if isinstance(method, Sparsify | QAT) and not isinstance(following, Quantize):
            raise UsageError(
                f"{text!r} trains on after {written(method)!r}",
                hint="that would undo it: put it last, or last before quantization",
            )
    return chain


def written(method: Method) -> str:
    """A method as `parse` reads it."""
    match method:
        case Prune(keep, importance, scope):
            return f"prune={keep!r}" + _unless(importance, "magnitude") + _unless(scope, "global")
        case Factorize(energy):
            return f"factorize={energy!r}"
        case Shorten(keep):
            return f"shorten={keep!r}"
        case Sparsify(keep, pattern):
            return f"sparsify={keep!r}" if pattern == "any" else "sparsify24"
        case Distil(lesson=lesson):
            return "distil" + _unless(lesson, "answers")
        case Quantize(bits, rule, layers, parts, rounding):
            options = ((rule, "minmax"), (layers, "all"), (parts, "all"), (rounding, "nearest"))
            return f"int{bits}" + "".join(itertools.starmap(_unless, options))
        case _:
            return method.kind


def label(method: Method) -> str:
    """A method as part of a file's name."""
    if isinstance(method, Narrow) or (isinstance(method, Distil) and method.lesson == "answers"):
        return DONE[method.kind]
    return written(method).replace("=", "").replace(":", "-")


DONE = {
    "trained": "trained",
    "narrow": "pruned",
    "prune": "pruned",
    "shorten": "shortened",
    "factorize": "factorized",
    "distil": "distilled",
    "sparsify": "made sparse",
    "qat": "trained for int8",
    "quantize": "quantized",
}
"""What has been done, by kind of method; "trained" where nothing has."""


def said(chain: Chain) -> str:
    """What has been done, in words."""
    return ", then ".join(map(_said, chain)) or DONE["trained"]


def _said(method: Method) -> str:
    match method:
        case Prune(keep, importance, scope):
            where = "" if scope == "global" else " in each layer"
            return f"pruned to {100 * keep:.3g} % of the parameters{where} by {_CRITERIA[importance]}"
        case Factorize(energy):
            return f"factorized at {100 * energy:.3g} % of the energy"
        case Shorten(keep):
            return f"shortened to {100 * keep:.3g} % of the layers"
        case Sparsify(keep, pattern):
            return f"made sparse, {100 * keep:.3g} % of the weights left" + (
                "" if pattern == "any" else f" ({pattern})"
            )
        case Distil(lesson="features"):
            return "distilled from features"
        case Quantize(bits, rule, layers, parts, rounding):
            how = [word for word, usual in ((rule, "minmax"), (rounding, "nearest")) if word != usual]
            what = f"int{bits}" + (" weights" if parts == "weights" else "")
            where = "" if layers == "all" else " where it pays"
            return f"quantized to {what}{where}" + (f" ({', '.join(how)})" if how else "")
        case _:
            return DONE[method.kind]


_CRITERIA = {"magnitude": "magnitude", "taylor": "Taylor expansion", "hessian": "second order", "random": "chance"}


def _unless(value: str, usual: str) -> str:
    return "" if value == usual else f":{value}"


def _method(text: str) -> Method:
    name, *options = text.split(":")
    name, _, number = name.partition("=")
    if name not in _READ:
        near = difflib.get_close_matches(name, _READ, n=1)
        raise UsageError(
            f"unknown method {name!r}", hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_READ)}"
        )
    share, allowed, make = _READ[name]
    unknown = [option for option in options if option not in allowed]
    if unknown:
        known = f"it takes {', '.join(sorted(allowed))}" if allowed else "it takes none"
        raise UsageError(f"{name} has no option {unknown[0]!r}", hint=known)
    return make(_share(text, number, wanted=share), options)


def _share(text: str, number: str, *, wanted: bool) -> float:
    if not wanted and not number:
        return 1.0
    try:
        value = float(number) if wanted else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise UsageError(
            f"cannot read {text!r}",
            hint="write a share between 0 and 1, such as prune=0.5" if wanted else "it takes no number",
        )
    return value


def _prune(keep: float, options: list[str]) -> Prune:
    named = [importance for importance in IMPORTANCES if importance in options]
    return Prune(keep, named[0] if named else "magnitude", "uniform" if "uniform" in options else "global")


def _int8(_: float, options: list[str]) -> Quantize:
    if "weights" in options:
        return Quantize(8, parts="weights")
    named = [rule for rule in RULES if rule in options]
    return Quantize(8, named[0] if named else "minmax", "mixed" if "mixed" in options else "all")


def _int4(_: float, options: list[str]) -> Quantize:
    return Quantize(4, rounding="gptq" if "gptq" in options else "nearest")


def _distil(_: float, options: list[str]) -> Distil:
    return Distil(lesson="features" if "features" in options else "answers")


IMPORTANCES: tuple[Importance, ...] = ("magnitude", "taylor", "hessian", "random")
RULES: tuple[Rule, ...] = ("minmax", "entropy", "percentile")

_READ: dict[str, tuple[bool, set[str], Callable[[float, list[str]], Method]]] = {
    "prune": (True, {*IMPORTANCES, "global", "uniform"}, _prune),
    "shorten": (True, set(), lambda keep, _: Shorten(keep)),
    "factorize": (True, set(), lambda energy, _: Factorize(energy)),
    "distil": (False, {"features"}, _distil),
    "sparsify": (True, set(), lambda keep, _: Sparsify(keep)),
    "sparsify24": (False, set(), lambda _, __: Sparsify(0.5, "2:4")),
    "qat": (False, set(), lambda _, __: QAT()),
    "int8": (False, {*RULES, "mixed", "weights"}, _int8),
    "int4": (False, {"gptq"}, _int4),
}
"""Name: (whether it takes a share, its options, how it is made)."""
