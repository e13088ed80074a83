"""The setting `task_annotations`: attributes of tasks that the configuration gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..utils.functional import firstmethod, mlazy
from ..utils.imports import instantiate

__all__ = ["MapAnnotation", "prepare", "resolve_all"]

_of_task = firstmethod("annotate")
_of_any = firstmethod("annotate_any")


class MapAnnotation(dict[str, Any]):
    """Attributes by the task's name; those under "*" are for every task."""

    def annotate_any(self) -> dict[str, Any] | None:
        """Return what every task gets."""
        return self._named("*")

    def annotate(self, task: Any) -> dict[str, Any] | None:
        """Return what this task gets."""
        return self._named(task.name)

    def _named(self, name: str) -> dict[str, Any] | None:
        return dict(self[name]) if name in self else None


def prepare(annotations: Any) -> Sequence[Any]:
    """Return the annotations of the setting; classes given by name are made when first needed."""
    if annotations is None:
        return ()
    if not isinstance(annotations, (list, tuple)):
        annotations = (annotations,)
    return [_prepared(annotation) for annotation in annotations]


def _prepared(annotation: Any) -> Any:
    if isinstance(annotation, dict):
        return MapAnnotation(annotation)
    return mlazy(instantiate, annotation) if isinstance(annotation, str) else annotation


def resolve_all(anno: Sequence[Any], task: Any) -> Iterator[dict[str, Any]]:
    """Yield what the task gets by its name, then what every task gets."""
    return (found for found in (_of_task(anno, task), _of_any(anno)) if found)
