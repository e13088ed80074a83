"""Files that come with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["get_file", "logo"]


def get_file(*args: str) -> str:
    """Return the path of a file here."""
    return str(Path(__file__).resolve().parent.joinpath(*args))


def logo() -> str:
    """Return the path of the logo."""
    return get_file("celery_128.png")
