"""Smaller and faster models from trained ones: pruning, distillation, int8, and int8 of the pruned and distilled."""

from __future__ import annotations

from sizewise.compress.candidates import build, models
from sizewise.compress.start import prepare
from sizewise.compress.trials import plan_trials, within

__all__ = ["build", "models", "plan_trials", "prepare", "within"]
