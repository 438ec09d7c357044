"""Runs as evidence: tables on disk, numbers as people write them, and the rows that a law is fitted to."""

from __future__ import annotations

from sizewise.laws.intake.evidence import Evidence
from sizewise.laws.intake.table import Columns, read_points, read_table

__all__ = ["Columns", "Evidence", "read_points", "read_table"]
