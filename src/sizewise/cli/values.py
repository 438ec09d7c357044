"""What a flag says, as a value."""

from __future__ import annotations

import argparse
import re


def duration(text: str) -> float:
    """Seconds from `90`, `90s`, `10m` or `2h`."""
    return _scaled(text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}, "a time such as 90s, 10m or 2h")


def size(text: str) -> int:
    """Bytes from `500000`, `500kB`, `2MB` or `1GB` (decimal), or `512KiB`, `2MiB`."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    return int(_scaled(text, units, "a size such as 500kB or 2MB"))


def count(text: str) -> int:
    """A whole number from `50000`, `50k` or `2M`."""
    return int(_scaled(text, {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}, "a number such as 50000, 50k or 2M"))


def _scaled(text: str, units: dict[str, int], expected: str) -> float:
    match = re.fullmatch(r"([0-9.]+)\s*([a-zA-Z]*)", text.strip())
    if match is None or match[2].lower() not in units or match[1].count(".") > 1 or match[1] == ".":
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return float(match[1]) * units[match[2].lower()]


def whole_numbers(text: str) -> list[int]:
    """A list from `4,8,16`."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 4,8,16") from error


def some_counts(text: str) -> list[int]:
    """A list of whole numbers from 1, such as `1,2`."""
    found = whole_numbers(text)
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 1, such as 1,2")
    return found


def pixels(text: str) -> list[int]:
    """Height and width from `96x128`, or of a square from `64`."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 96x128")
    return [int(sides[0]), int(sides[-1])]


def numbers(text: str) -> list[float]:
    """A list from `0.25,0.5`."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 0.25,0.5") from error


def positive(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def natural(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def milliseconds(text: str) -> float:
    """A time of 0 or more."""
    return 0.0 if text.strip() == "0" else positive(text)


def amount(text: str) -> float:
    """A number above zero as tables write it: `1e21`, `7B`, `300M`."""
    from sizewise.laws.intake.numbers import parse

    value, suffix = parse(text)
    if suffix == "%" or not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 1e21, 7B or 300M")
    return value


def spending(text: str) -> str:
    """An amount of operations, time or money, as it is written: `1e21`, `7B`, `100h`, `500USD`."""
    from sizewise.cluster import prices
    from sizewise.errors import UsageError

    try:
        return text if prices.parse(text) else ""
    except UsageError:
        return f"{amount(text):.12g}"


def share(text: str) -> float:
    """A number between 0 and 1, both left out."""
    if not 0 < (value := positive(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.9")
    return value


def chance(text: str) -> float:
    """What guessing scores: 0, or a number below 1."""
    return 0.0 if text.strip() in ("0", "0.0") else share(text)


def draws(text: str) -> int:
    """0, or enough resamples for an interval."""
    if not text.isdecimal() or 0 < int(text) < 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or a whole number from 20, such as 400")
    return int(text)


def switch(text: str) -> bool:
    """`true` or `false`, as in study.toml."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false")
    return text == "true"


def words(text: str) -> list[str]:
    """A list from `prune,int8`."""
    return [part.strip() for part in text.split(",") if part.strip()]
