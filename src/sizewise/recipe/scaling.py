"""How the learning rate follows the width, so that every size is trained fairly.

A size ladder trained at one learning rate measures the learning rate as much as the size. The rule here is a start;
whether it holds is checked on the user's data, see `tune.rates`.
"""

from __future__ import annotations

from dataclasses import replace

from sizewise.recipe.optimizers import OPTIMIZERS
from sizewise.records import Recipe

REFERENCE_WIDTH = 32
"""The width at which a recipe's learning rate is stated."""


def at_width(recipe: Recipe, width: int) -> Recipe:
    """The recipe with its learning rate moved from the reference width to `width`.

    Adam's steps do not shrink with the gradient, so a layer with more inputs moves its output further at the same
    rate: hidden layers want 1/width and input and output layers none (Yang et al. 2022, arXiv:2203.03466, table 3).
    One rate for all layers takes the middle, 1/√width. So do all that divide by the gradient's size: RMSprop, AdamW,
    Schedule-Free AdamW. Gradient descent's steps scale with the gradient already.

    Muon's step as long as AdamW's has a spectral norm that grows with √width (Liu et al. 2025, arXiv:2502.16982,
    equation 4), and a hidden layer wants one that does not (Yang et al. 2023, arXiv:2310.17813, condition 1): 1/√width
    too. Prodigy finds its rate at each width itself.
    """
    return replace(recipe, lr=recipe.lr * (REFERENCE_WIDTH / width) ** OPTIMIZERS[recipe.optimizer].exponent)
