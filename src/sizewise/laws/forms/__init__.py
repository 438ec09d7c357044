"""The forms a law can take, by the variables they need. One file a kind; to add a form, add a line here."""

from __future__ import annotations

from functools import cache

from sizewise.errors import UsageError
from sizewise.laws.forms.bounded import Bounded
from sizewise.laws.forms.broken import Broken
from sizewise.laws.forms.coupled import Coupled, Kaplan
from sizewise.laws.forms.form import Array, Bounds, Form
from sizewise.laws.forms.powers import SumOfPowers, Term
from sizewise.laws.forms.repeated import Repeated

LETTERS = {"params": "N", "samples": "D", "compute": "C"}

_BOTH = ("params", "samples")
_A, _B, _E = Term("A", params="alpha"), Term("B", samples="beta"), Term("E")


def _of_one(variable: str) -> tuple[Form, ...]:
    letter, power = LETTERS[variable], Term("A", **{variable: "alpha"})
    name = f"{letter}^-alpha"
    return (
        SumOfPowers("power", f"L = A·{name}", "Hestness et al. 2017, arXiv:1712.00409", (variable,), (power,)),
        SumOfPowers(
            "power+floor", f"L = E + A·{name}", "Henighan et al. 2020, arXiv:2010.14701", (variable,), (_E, power)
        ),
        Broken(1, "shifted", (variable,), flat_start=True),
        Bounded("bounded", (variable,)),
        Broken(1, "broken-1", (variable,)),
        Broken(2, "broken-2", (variable,)),
        Broken(3, "broken-3", (variable,)),
    )


_OF_TWO: tuple[Form, ...] = (
    SumOfPowers(
        "additive", "L = E + A·N^-alpha + B·D^-beta", "Hoffmann et al. 2022, arXiv:2203.15556", _BOTH, (_E, _A, _B)
    ),
    SumOfPowers(
        "tied",
        "L = E + A·N^-alpha + B·D^-alpha",
        "the additive law at equal exponents, Muennighoff et al. 2023, arXiv:2305.16264, appendix A",
        _BOTH,
        (_E, _A, Term("B", samples="alpha")),
    ),
    Coupled(),
    Kaplan(),
    SumOfPowers("powers", "L = A·N^-alpha + B·D^-beta", "the additive law without a floor", _BOTH, (_A, _B)),
)

NOT_BY_DEFAULT = ("broken-2", "broken-3")
"""They find the wiggles of the evidence and follow them out of it: on 53 learning curves their error is twice that of
one break. They are there for those who ask."""


@cache
def candidates(variables: tuple[str, ...]) -> tuple[Form, ...]:
    """The forms that compete for these variables."""
    return tuple(form for form in known(variables) if form.name not in NOT_BY_DEFAULT)


@cache
def known(variables: tuple[str, ...]) -> tuple[Form, ...]:
    """All forms of these variables."""
    if len(variables) == 1:
        return _of_one(variables[0])
    return (Repeated(),) if "unique" in variables else _OF_TWO


def named(name: str, variables: tuple[str, ...]) -> Form:
    """A form by its name.

    Raises:
        UsageError: there is none of that name for these variables.
    """
    for form in known(variables):
        if form.name == name:
            return form
    names = ", ".join(form.name for form in known(variables))
    raise UsageError(f"no form {name!r} of {' and '.join(variables)}", hint=f"one of {names}")


__all__ = ["LETTERS", "Array", "Bounds", "Form", "candidates", "known", "named"]
