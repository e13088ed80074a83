"""`python -m celery`."""

from __future__ import annotations

import sys
from importlib import import_module

from . import maybe_patch_concurrency

__all__ = ["main"]


def main() -> None:
    """Run the command `celery`; patch for greenlets before anything else is imported."""
    if "multi" not in sys.argv:
        maybe_patch_concurrency()
    sys.exit(import_module(f"{__package__}.bin.celery").main())


if __name__ == "__main__":
    main()
