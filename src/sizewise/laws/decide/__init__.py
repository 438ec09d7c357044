"""What a law of parameters and samples is good for: sizes, budgets and trades, each with its interval."""

from __future__ import annotations

from sizewise.laws.decide.shortages import Shortages, optimal_log_params

__all__ = ["Shortages", "optimal_log_params"]
