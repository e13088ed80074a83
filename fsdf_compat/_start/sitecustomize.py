"""Read by Python when it starts with this folder in `PYTHONPATH`: lets `celery` mean fsdf_compat.

Where fsdf is installed, a file in `site-packages` does the same.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

_HERE = os.path.dirname(os.path.abspath(__file__))


def _run_hidden() -> None:
    """Run the `sitecustomize` that this one hides."""
    places = [place for place in sys.path if os.path.abspath(place or ".") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", places)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


_run_hidden()
if os.environ.get("FSDF_AS_CELERY", "0") not in ("", "0"):
    import fsdf_compat

    fsdf_compat.activate()
