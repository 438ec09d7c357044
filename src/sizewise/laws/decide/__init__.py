"""What a law of parameters and samples is good for: sizes, budgets and trades, each with its interval."""

from __future__ import annotations

from sizewise.laws.decide.budgets import spending
from sizewise.laws.decide.growth import growth
from sizewise.laws.decide.optimum import compute_optimal
from sizewise.laws.decide.serving import serving_optimal
from sizewise.laws.decide.shortages import Shortages, optimal_log_params
from sizewise.laws.decide.trades import FEWER, equal_loss

__all__ = [
    "FEWER",
    "Shortages",
    "compute_optimal",
    "equal_loss",
    "growth",
    "optimal_log_params",
    "serving_optimal",
    "spending",
]
