"""Templates of the pages, and what fills them in."""

from __future__ import annotations

from importlib.resources import files

from sizewise.report import format as f
from sizewise.report.svg import glyph


def part(name: str) -> str:
    """A file of this package."""
    return (files("sizewise.report") / name).read_text()


def pour(template: str, **values: object) -> str:
    """A template with the values in it, which are escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(part), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "shown": f.shown,
        "percent": f.percent,
        "size": f.size,
        "p_value": f.p_value,
        "duration": f.duration,
        "counted": f.counted,
        "sentence": f.sentence,
        "quantity": f.quantity,
        "greek": f.greek,
        "glyph": glyph,
    }
    return environment.get_template(template).render(**values)
