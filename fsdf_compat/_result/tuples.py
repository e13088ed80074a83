"""What all results are, and how they are told of in other results: as tuples."""

from __future__ import annotations

from typing import Any

from .. import _state

__all__ = ["ResultBase", "result_from_tuple"]


class ResultBase:
    """What all results are."""

    parent: Any = None


def result_from_tuple(r: Any, app: Any = None) -> Any:
    """Return the result that `as_tuple` has told of; a result itself as it is."""
    if isinstance(r, ResultBase):
        return r
    app = _state.app_or_default(app)
    own, nodes = r
    id, parent = own if isinstance(own, (list, tuple)) else (own, None)
    if parent:
        parent = result_from_tuple(parent, app)
    if nodes is None:
        return app.AsyncResult(id, parent=parent)
    results = [result_from_tuple(child, app) for child in nodes]
    return app.GroupResult(id, results, parent=parent)
