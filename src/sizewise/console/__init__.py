"""What people see in a terminal: records as text on stdout, progress with an ETA on stderr."""

from sizewise.console.candidates import compression, exports, measurements, scenarios, search
from sizewise.console.cluster import simulated
from sizewise.console.decisions import decisions
from sizewise.console.laws import law, laws, link
from sizewise.console.progress import progress
from sizewise.console.sweep import choice, comparison, findings, left_out, limits, plan, runs, tuned
from sizewise.console.text import duration, table

__all__ = [
    "choice",
    "comparison",
    "compression",
    "decisions",
    "duration",
    "exports",
    "findings",
    "law",
    "laws",
    "left_out",
    "limits",
    "link",
    "measurements",
    "plan",
    "progress",
    "runs",
    "scenarios",
    "search",
    "simulated",
    "table",
    "tuned",
]
