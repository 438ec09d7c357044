"""What earlier studies found, kept for later ones: one file of numbers about tasks, recipes and answers.

features.py    a task in numbers that two tasks can be compared by
shelf.py       the file: precedents are read from it and added to it
nearest.py     what the nearest precedents say of a new task, and how little when none is near
"""

from sizewise.library.features import SCALES, features
from sizewise.library.nearest import Similar, comparable, distance, exponents, guess, nearest, recipes
from sizewise.library.shelf import add, folder, precedents

__all__ = [
    "SCALES",
    "Similar",
    "add",
    "comparable",
    "distance",
    "exponents",
    "features",
    "folder",
    "guess",
    "nearest",
    "precedents",
    "recipes",
]
