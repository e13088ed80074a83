"""`group`: tasks side by side."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import fxrange
from vine import barrier

from .._state import current_app
from ..utils import abstract
from ..utils.functional import _regen, regen
from ..utils.objects import getitem_property
from ..utils.text import remove_repeating_from_task
from .late import canvas
from .shapes import is_empty_group
from .signature import Signature
from .stamping import stamp_task

if TYPE_CHECKING:
    from .._result.many import GroupResult

__all__ = ["group", "maybe_group"]


def maybe_group(tasks: Any, app: Any) -> Any:
    """Return the tasks of a signature, or signatures of a list of tasks; lazily if it is lazy."""
    if isinstance(tasks, dict):
        tasks = canvas.signature(tasks, app=app)
    if isinstance(tasks, (group, canvas._chain)):
        return tasks.tasks
    if isinstance(tasks, abstract.CallableSignature):
        return [tasks]
    made = (canvas.signature(task, app=app) for task in tasks)
    return regen(made) if isinstance(tasks, Iterator) else list(made)


def _is_dropped(task: Any) -> bool:
    """Say whether a task of a group is a chain without steps: it has no result."""
    return isinstance(task, canvas._chain) and not task.tasks


@contextmanager
def _sending(app: Any, producer: Any) -> Iterator[Any]:
    """Give the producer of many messages; an app of ours needs none, and sends them together."""
    if (together := getattr(type(app.amqp), "together", None)) is None:
        with app.producer_or_acquire(producer) as producer:
            yield producer
    else:
        with together(app.amqp):
            yield producer


@Signature.register_type()
class group(Signature):
    """Tasks side by side, given one by one or as an iterable; calling it sends them."""

    tasks = getitem_property("kwargs.tasks", "The tasks.")

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the group that a dict is the form of; the dict holds its very tasks then."""
        given = d["kwargs"]["tasks"]
        made = type(given)(canvas.maybe_signature(task, app=app) for task in given)
        d["kwargs"]["tasks"] = made
        return cls(made, app=app, **d["options"])

    def __init__(self, *tasks: Any, **options: Any) -> None:
        given: Any = tasks
        if len(tasks) == 1:
            given = tasks[0]
            if isinstance(given, group):
                given = given.tasks
            if isinstance(given, abstract.CallableSignature):
                given = [given.clone()]
            if not isinstance(given, _regen):
                given = regen(given)
        super().__init__("celery.group", (), {"tasks": given}, **options)
        self.subtask_type = "group"

    def __call__(self, *partial_args: Any, **options: Any) -> GroupResult:
        """Send the tasks."""
        return self.apply_async(partial_args, **options)

    def __or__(self, other: Any) -> Signature:
        """Make a chord: the other is called with the list of results."""
        if is_empty_group(other) and not isinstance(other.tasks, _regen):
            return self
        return canvas.chord(self, body=other, app=self._app)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Any:
        """Give the tasks countdowns that grow."""
        pauses = fxrange(start, stop, step, repeatlast=True)
        for task in self.tasks:
            task.set(countdown=next(pauses))
        return self

    # ---------------------------------------------------------------- calling

    def apply_async(  # type: ignore[override]
        self,
        args: Any = None,
        kwargs: Any = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> GroupResult:
        """Send the tasks; return what becomes of them."""
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord")
        if link_error is not None:
            raise TypeError("Cannot add link to group: do that on individual tasks")
        app = self.app
        if app.conf.task_always_eager:
            return self.apply(args, kwargs, **options)
        if not self.tasks:
            return self.freeze()
        options, group_id, root_id = self._freeze_gid(options)
        tasks = self._prepared(self.tasks, [], group_id, root_id, app)
        ready = barrier()
        results = list(
            self._apply_tasks(
                tasks, producer, app, ready, args=args or (), kwargs=kwargs, **options
            )
        )
        result = app.GroupResult(group_id, results, ready_barrier=ready)
        ready.finalize()
        if len(result) == 1 and isinstance(result[0], canvas.GroupResult):
            result = result[0]  # of a single chain that ends in a group
        if add_to_parent and (parent := app.current_worker_task):
            parent.add_trail(result)
        return result

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the tasks here."""
        app = self.app
        if not self.tasks:
            return self.freeze()
        options, group_id, root_id = self._freeze_gid(options)
        # unfrozen: the result of a group in a chain would have the backend look for it
        tasks = self._prepared(self.tasks, [], group_id, root_id, app, freeze=False)
        results = [task.apply(args=args or (), kwargs=kwargs or {}, **options)
                   for task, _, _ in tasks]  # fmt: skip
        return app.GroupResult(group_id, results)

    def _prepared(
        self,
        tasks: Any,
        partial_args: Any,
        group_id: Any,
        root_id: Any,
        app: Any,
        CallableSignature: Any = abstract.CallableSignature,
        from_dict: Any = Signature.from_dict,
        isinstance: Any = isinstance,
        tuple: Any = tuple,
        *,
        freeze: bool = True,
    ) -> Iterator[tuple[Any, Any, Any]]:
        """Yield copies of the tasks, with their results and the group's id; groups are unrolled."""
        for n, task in enumerate(tasks):
            is_ours = isinstance(task, CallableSignature)
            task = task.clone() if is_ours else from_dict(task, app=app)
            if isinstance(task, group):
                yield from task._prepared(
                    task.tasks, partial_args, group_id, root_id, app, freeze=freeze
                )
            elif not _is_dropped(task):
                if partial_args and not task.immutable:
                    task.args = (*partial_args, *task.args)
                result = None
                if freeze:
                    result = task.freeze(group_id=group_id, root_id=root_id, group_index=n)
                yield task, result, group_id

    def _apply_tasks(
        self,
        tasks: Iterator[tuple[Any, Any, Any]],
        producer: Any = None,
        app: Any = None,
        p: Any = None,
        add_to_parent: Any = None,
        chord: Any = None,
        args: Any = None,
        kwargs: Any = None,
        group_index: Any = None,
        **options: Any,
    ) -> Iterator[Any]:
        """Send prepared tasks, and yield their results; a chord learns its size before the last."""
        app = app or self.app
        size = 0
        with _sending(app, producer) as producer:
            ahead = iter(tasks)
            following = next(ahead, None)
            while following is not None:
                (task, result, group_id), following = following, next(ahead, None)
                body = chord if chord is not None else task.options.get("chord")
                size += canvas._chord._descend(task)
                if body is not None and following is None:
                    app.backend.set_chord_size(group_id, size)
                task.apply_async(
                    producer=producer, add_to_parent=False, chord=body, args=args, kwargs=kwargs,
                    **options,
                )  # fmt: skip
                if p and not p.cancelled and not p.ready:
                    p.size += 1
                    result.then(p, weak=True)
                yield result

    # ---------------------------------------------------------------- links and stamps

    def set_immutable(self, immutable: bool) -> None:
        """Let the tasks take no more arguments, or take them again."""
        for task in self.tasks:
            task.set_immutable(immutable)

    def link(self, sig: Any) -> Any:
        """Link an immutable copy to the first task: none has the results of all."""
        return self.tasks[0].link(sig.clone().set(immutable=True))

    def link_error(self, sig: Any) -> Any:
        """Link copies to all tasks, any of which may fail; return what was linked."""
        sig = canvas.maybe_signature(sig)
        return tuple(task.link_error(sig.clone()) for task in self.tasks)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp all tasks; lazy ones when they come."""
        told = None if visitor is None else visitor.on_group_start(self, **headers) or {}
        headers = self._stamp_headers(told, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        if isinstance(self.tasks, _regen):
            self.tasks.map(
                partial(stamp_task, visitor=visitor, append_stamps=append_stamps, **headers)
            )
        else:
            tasks = [canvas.maybe_signature(task, app=self.app) for task in self.tasks]
            for task in tasks:
                task.stamp(visitor, append_stamps, **headers)
            self._put(tasks)
        if visitor is not None:
            visitor.on_group_end(self, **headers)

    def _put(self, tasks: list[Any]) -> None:
        """Let these be the tasks, in the very list where there is one."""
        if isinstance(self.tasks, MutableSequence):
            self.tasks[:] = tasks
        else:
            self.tasks = tasks

    # ---------------------------------------------------------------- freezing

    def _freeze_gid(self, options: dict) -> tuple[dict, Any, Any]:
        """Return the options of the tasks, the group's id (its task id so far) and the root's."""
        fixed = self._IMMUTABLE_OPTIONS.intersection(self.options)
        merged = {**self.options, **{k: v for k, v in options.items() if k not in fixed}}
        id = merged.pop("task_id", None) or canvas.uuid()
        merged["group_id"] = id
        return merged, id, merged.get("root_id")

    def freeze(
        self,
        _id: Any = None,
        group_id: Any = None,
        chord: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        group_index: Any = None,
    ) -> Any:
        """Give all tasks their ids; groups in it are unrolled. Returns the result of all."""
        return self.app.GroupResult(
            *self._freeze_group_tasks(_id, group_id, chord, root_id, parent_id, group_index)
        )

    _freeze = freeze

    def _freeze_group_tasks(
        self,
        _id: Any = None,
        group_id: Any = None,
        chord: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        group_index: Any = None,
    ) -> tuple[Any, Any]:
        """Return the group's id and the results of its tasks, which stay lazy if they are."""
        opts = self.options
        if "task_id" not in opts:
            opts["task_id"] = canvas.uuid()
        if group_id:
            opts["group_id"] = group_id
        if chord:
            opts["chord"] = chord
        if group_index is not None:
            opts["group_index"] = group_index
        root_id = opts.setdefault("root_id", root_id)
        parent_id = opts.setdefault("parent_id", parent_id)
        if isinstance(self.tasks, _regen):
            frozen, kept = itertools.tee(self._unroll_tasks(self.tasks))
            results: Any = regen(self._freeze_tasks(frozen, group_id, chord, root_id, parent_id))
            self.tasks = regen(kept)
        else:
            tasks: list[Any] = []
            results = list(self._freeze_unroll(tasks, group_id, chord, root_id, parent_id))
            self._put(tasks)
        return opts["task_id"], results

    def _freeze_tasks(
        self, tasks: Any, group_id: Any, chord: Any, root_id: Any, parent_id: Any
    ) -> Iterator[Any]:
        for n, task in enumerate(tasks):
            if not _is_dropped(task):
                yield task.freeze(
                    group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id,
                    group_index=n,
                )  # fmt: skip

    def _unroll_tasks(self, tasks: Any) -> Iterator[Any]:
        for task in tasks:
            yield canvas.maybe_signature(task, app=self._app).clone()

    def _freeze_unroll(
        self, new_tasks: list[Any], group_id: Any, chord: Any, root_id: Any, parent_id: Any
    ) -> Iterator[Any]:
        """Yield the results of frozen copies of the tasks, which are added to `new_tasks`."""
        ahead = deque(self.tasks)
        while ahead:
            task = canvas.maybe_signature(ahead.popleft(), app=self._app).clone()
            if isinstance(task, group):
                ahead.extendleft(task.tasks)
            elif not _is_dropped(task):
                new_tasks.append(task)
                yield task.freeze(
                    group_id=group_id, chord=chord, root_id=root_id, parent_id=parent_id,
                    group_index=len(new_tasks) - 1,
                )  # fmt: skip

    # ---------------------------------------------------------------- as an object

    def __repr__(self) -> str:
        if not self.tasks:
            return "group(<empty>)"
        return remove_repeating_from_task(self.tasks[0]["task"], f"group({self.tasks!r})")

    def __len__(self) -> int:
        return len(self.tasks)

    @property
    def app(self) -> Any:
        """The app of the group, or of its first task."""
        app = self._app
        if app is None:
            try:
                app = self.tasks[0].app
            except LookupError:
                pass
        return app if app is not None else current_app
