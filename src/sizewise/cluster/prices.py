"""What compute is bought with: floating-point operations, hours or money."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sizewise.errors import UsageError

SECONDS = {"h": 3600.0, "d": 86_400.0}
SYMBOLS = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "CNY"}
_WRITTEN = re.compile(r"(?P<symbol>[$€£¥]?)\s*(?P<number>[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-z]*)")


@dataclass(frozen=True)
class Amount:
    """What may be spent: a positive number of "FLOP", of "h" (hours), or of a currency such as "USD"."""

    value: float
    unit: str

    @property
    def money(self) -> bool:
        """Whether it is money."""
        return self.unit not in ("FLOP", "h")


def parse(text: str) -> Amount:
    """An amount as people write it: `1e21` or `1e21FLOP`, `100h` or `4d`, `500USD` or `$500`.

    Raises:
        UsageError: it is none of these.
    """
    match = _WRITTEN.fullmatch(text.strip())
    value = _number(match["number"]) if match else math.nan
    unit = _unit(match["symbol"], match["unit"]) if match else ""
    if not (unit and 0 < value < math.inf):
        raise UsageError(f"{text!r} is no amount", hint="give operations as 1e21, a time as 100h, or money as 500USD")
    return Amount(value * SECONDS[unit] / 3600, "h") if unit in SECONDS else Amount(value, unit)


def _number(text: str) -> float:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


def _unit(symbol: str, unit: str) -> str:
    """ "FLOP", "h", "d" or a currency; "" where it is nothing known."""
    if symbol:
        return "" if unit else SYMBOLS[symbol]
    if unit.upper() in ("", "FLOP", "FLOPS"):
        return "FLOP"
    if unit.lower() in SECONDS:
        return unit.lower()
    return unit.upper() if len(unit) == 3 else ""


@dataclass(frozen=True)
class Rate:
    """What an hour is good for and what it costs.

    Attributes:
        speed: FLOP per second that training reaches on everything that is paid for together; 0 is unknown. The peak of
            the hardware times what of it is reached (Chowdhery et al. 2022, arXiv:2204.02311, section 4.1), or the
            simulation's `speed`.
        price: of an hour of it; 0 is unknown.
    """

    speed: float = 0.0
    price: float = 0.0

    def flop(self, amount: Amount) -> float:
        """Floating-point operations that an amount buys.

        Raises:
            UsageError: the speed, or the price, is not known.
        """
        if amount.unit == "FLOP":
            return amount.value
        hours = amount.value
        if amount.money:
            hours = amount.value / self._known("price", amount)
        return 3600 * hours * self._known("speed", amount)

    def spent(self, flop: float, unit: str) -> float:
        """What so many operations take, in a unit of amounts.

        Raises:
            UsageError: as `flop`.
        """
        one = self.flop(Amount(1.0, unit))
        return flop / one

    def _known(self, name: str, amount: Amount) -> float:
        value = self.speed if name == "speed" else self.price
        if value <= 0:
            what = "operations a second that training reaches" if name == "speed" else "price of an hour"
            raise UsageError(
                f"{amount.value:g} {amount.unit} buy nothing that can be counted: the {what} is not given",
                hint=f"give --{name}, such as --speed 4e14 --price 30",
            )
        return value


__all__ = ["Amount", "Rate", "parse"]
