"""Self-contained pages about a study or a law: leaves that nothing else depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sizewise.report.page import Page, render
    from sizewise.report.study_page import collect, write

_HOMES = {"collect": "study_page", "write": "study_page", "Page": "page", "render": "page"}

__all__ = ["Page", "collect", "render", "write"]


def __getattr__(name: str) -> Any:
    """Loaded when used: the page of a law needs no study, and a study needs PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
