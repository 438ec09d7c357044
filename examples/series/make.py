"""Writes runs/data/digit_rows.csv: scikit-learn's handwritten digits, read row by row as series.

    python examples/series/make.py

Each of the 1,797 images of 8×8 pixels becomes a series of 8 steps (its rows, from the top) with 8 channels (the pixels
of a row): images, not measurements over time, but real data that every installation has.
"""

from __future__ import annotations

import csv
from pathlib import Path

from sklearn.datasets import load_digits

PATH = Path("runs/data/digit_rows.csv")


def main() -> None:
    """Write the table in long form: one row a step."""
    digits = load_digits()
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["sample", "step", *(f"pixel{i}" for i in range(8)), "digit"])
        for sample, (image, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
            table.writerows([sample, step, *map(int, row), digit] for step, row in enumerate(image))
    print(PATH)


if __name__ == "__main__":
    main()
