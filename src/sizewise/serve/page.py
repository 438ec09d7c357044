"""The page at `/`, where a model can be tried by hand, and the page of the OpenAPI document.

They are plain files without a build step. Everything they need comes from this server, so they work without a network.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from sizewise.records import to_json
from sizewise.serve.models import Model

PATHS = {
    "/": "index.html",
    "/docs": "docs.html",
    **{f"/static/{name}": name for name in ("page.css", "page.js", "inputs.js", "answers.js", "docs.js")},
}
"""The files, by where they are served. There are no others, whatever a request asks for."""

TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def read(name: str) -> tuple[bytes, str]:
    """Content and media type of one of the files."""
    return (files("sizewise.serve") / "static" / name).read_bytes(), TYPES[name.rsplit(".", 1)[1]]


def about(model: Model) -> dict[str, Any]:
    """What the page has to know of a model, beyond what the protocol tells."""
    config = model.config
    return {
        "name": model.name,
        "version": model.version,
        "signature": to_json(config.signature),
        "layout": config.signature.layout,
        "takes_text": model.tokens is not None,
        "takes_sound": model.sounds is not None,
        "classes": list(config.classes),
        "mean": list(config.preprocessor.mean),
        "std": list(config.preprocessor.std),
        "runtime": config.runtime,
        "precision": config.precision,
        "family": config.family,
        "width": config.width,
        "card": model.card,
    }
