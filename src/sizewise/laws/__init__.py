"""From runs to a law: performance as a function of parameters, samples or compute."""

from __future__ import annotations

from sizewise.laws.fit import fit, fit_evidence
from sizewise.laws.forecast import predict
from sizewise.laws.intake import Columns, Evidence, read_points, read_table
from sizewise.laws.limits import limits
from sizewise.laws.link import fit_link, link_of, through

__all__ = [
    "Columns",
    "Evidence",
    "fit",
    "fit_evidence",
    "fit_link",
    "limits",
    "link_of",
    "predict",
    "read_points",
    "read_table",
    "through",
]
