"""`xmap`, `xstarmap` and `chunks`: many calls of one task in one message."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from ..utils.functional import chunks as parts_of
from ..utils.functional import regen
from ..utils.text import truncate
from .late import canvas
from .signature import Signature

__all__ = ["_basemap", "chunks", "task_name_from", "xmap", "xstarmap"]


def task_name_from(task: Any) -> Any:
    """Return the name of a task, which may be given itself."""
    return getattr(task, "name", task)


class _basemap(Signature):
    _task_name: Any = None
    _stars = ""
    _unpack_args = itemgetter("task", "it")

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the map that a dict is the form of."""
        return cls(*cls._unpack_args(d["kwargs"]), app=app, **d["options"])

    def __init__(self, task: Any, it: Any, **options: Any) -> None:
        super().__init__(
            self._task_name, (), {"task": task, "it": regen(it)}, immutable=True, **options
        )

    def apply_async(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:  # type: ignore[override]
        """Send the one message; it is routed as the task itself."""
        _, _, options = self._merge(options={k: v for k, v in opts.items() if v is not None})
        route = options.pop("route_name", None) or task_name_from(self.kwargs.get("task"))
        task, it = self._unpack_args(self.kwargs)
        return self.type.apply_async(
            (), {"task": task, "it": list(it)}, route_name=route, **options
        )

    def __repr__(self) -> str:
        task, it = self._unpack_args(self.kwargs)
        return f"[{task.task}({self._stars}x) for x in {truncate(repr(it), 100)}]"


@Signature.register_type()
class xmap(_basemap):
    """One message that calls a task for each item, one after the other."""

    _task_name = "celery.map"
    _stars = ""


@Signature.register_type()
class xstarmap(_basemap):
    """As `xmap`; each item is a list of arguments."""

    _task_name = "celery.starmap"
    _stars = "*"


@Signature.register_type()
class chunks(Signature):
    """As `xstarmap`, in messages for `n` items each."""

    _unpack_args = itemgetter("task", "it", "n")

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the chunks that a dict is the form of."""
        return cls(*cls._unpack_args(d["kwargs"]), app=app, **d["options"])

    def __init__(self, task: Any, it: Any, n: int, **options: Any) -> None:
        super().__init__(
            "celery.chunks", (), {"task": task, "it": regen(it), "n": n}, immutable=True, **options
        )

    def __call__(self, **options: Any) -> Any:
        """Send them."""
        return self.apply_async(**options)

    def apply_async(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:  # type: ignore[override]
        """Send the messages, as a group."""
        route = task_name_from(self.kwargs.get("task"))
        return self.group().apply_async(args or (), kwargs or {}, route_name=route, **opts)

    def group(self) -> Any:
        """Return the group of the messages."""
        task, it, n = self._unpack_args(self.kwargs)
        parts = parts_of(iter(it), n)
        return canvas.group((xstarmap(task, p, app=self._app) for p in parts), app=self._app)

    @classmethod
    def apply_chunks(cls, task: Any, it: Any, n: int, app: Any = None) -> Any:
        """Make and send them."""
        return cls(task, it, n, app=app)()
