"""From runs to a law: performance as a function of parameters, samples or compute."""

from __future__ import annotations

from sizewise.laws.evidence import Evidence
from sizewise.laws.fit import fit, fit_evidence
from sizewise.laws.forecast import predict

__all__ = ["Evidence", "fit", "fit_evidence", "predict"]
