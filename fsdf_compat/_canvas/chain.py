"""`chain`: tasks one after the other, each called with the result of the one before."""

from __future__ import annotations

import operator
from collections import deque
from functools import reduce
from typing import Any

from .._state import current_app
from ..states import IGNORED, REJECTED
from ..utils.functional import is_list, maybe_list, regen
from ..utils.objects import getitem_property
from ..utils.text import remove_repeating_from_task
from .late import canvas
from .preparing import Preparation
from .shapes import (
    fold_chain,
    is_chain_led_by_task,
    is_empty_group,
    maybe_unroll_group,
)
from .signature import Signature

__all__ = ["_chain", "chain"]


@Signature.register_type(name="chain")
class _chain(Signature):
    """A chain as it is, of tasks that are given one by one or as a list."""

    tasks = getitem_property("kwargs.tasks", "The steps.")

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the chain that a dict is the form of."""
        tasks = d["kwargs"]["tasks"]
        if tasks:
            if isinstance(tasks, tuple):
                tasks = d["kwargs"]["tasks"] = list(tasks)
            tasks = [canvas.maybe_signature(task, app=app) for task in tasks]
        return cls(tasks, app=app, **d["options"])

    def __init__(self, *tasks: Any, **options: Any) -> None:
        given: Any = regen(tasks[0]) if len(tasks) == 1 and is_list(tasks[0]) else tasks
        super().__init__("celery.chain", (), {"tasks": given}, **options)
        self._use_link = options.pop("use_link", None)
        self.subtask_type = "chain"
        self._frozen: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; None if it has no tasks."""
        return self.apply_async(args, kwargs) if self.tasks else None

    def __or__(self, other: Any) -> Signature:
        """Add a step, or those of another chain; what follows a group becomes a chord's body."""
        if is_empty_group(other):
            return self
        if isinstance(other, canvas.group):
            return self._with_group(other)
        if isinstance(other, _chain):
            return reduce(operator.or_, other.unchain_tasks(), self)
        if isinstance(other, Signature):
            return self._with_task(other)
        return NotImplemented

    def _with_group(self, group: Any) -> Any:
        other = maybe_unroll_group(group)
        if not isinstance(other, canvas.group):
            return self.__or__(other)
        if not (tasks := self.unchain_tasks()):
            return other
        if isinstance(tasks[-1], canvas.chord):
            tasks[-1].body = tasks[-1].body | other
            return type(self)(tasks, app=self.app)
        return type(self)([*tasks, other], app=self._app)

    def _with_task(self, task: Any) -> Any:
        last = self.tasks[-1] if self.tasks else None
        if isinstance(last, canvas.group):
            made = self.clone()
            chord = made.tasks[-1] = canvas.chord(made.tasks[-1], task, app=self._app)
            if len(made.tasks) > 1 and isinstance(made.tasks[-2], canvas.chord):
                made.tasks[-2].body = made.tasks[-2].body | chord
                made.tasks = made.tasks[:-1]
            return made
        if isinstance(last, canvas.chord) and not isinstance(task, canvas.chord):
            made = self.clone()
            made.tasks[-1].body = made.tasks[-1].body | task
            return made
        return type(self)([*self.unchain_tasks(), task], app=self._app)

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy of the chain and of its tasks."""
        made = super().clone(*args, **kwargs)
        made.kwargs["tasks"] = [
            canvas.maybe_signature(task, app=self._app, clone=True) for task in made.kwargs["tasks"]
        ]
        return made

    def unchain_tasks(self) -> list[Any]:
        """Return copies of the tasks, with the chain's callbacks on the last, errbacks on all."""
        tasks = [task.clone() for task in self.tasks]
        for callback in maybe_list(self.options.get("link")) or []:
            tasks[-1].link(callback)
        for errback in maybe_list(self.options.get("link_error")) or []:
            for task in tasks:
                task.link_error(errback)
        return tasks

    def _links_steps(self, app: Any) -> bool:
        """Say whether steps are callbacks of each other, as in the first protocol."""
        if self._use_link is None:
            return app.conf.task_protocol == 1
        return bool(self._use_link)

    def _unroll_chords(self, app: Any = None) -> None:
        """Let what follows the first task of a chord's body be steps of its own, in a copy."""
        app = app or self.app
        if self._links_steps(app):  # a header that fails has to find the end of the whole body
            return
        ahead, tasks = deque(self.tasks), []
        while ahead:
            task = ahead.popleft()
            if isinstance(task, _chain):
                task = task.clone()
                task._unroll_chords(app)
            if isinstance(task, canvas._chord) and is_chain_led_by_task(task.body):
                ahead.extendleft(reversed(task._unroll_body()))
            else:
                tasks.append(task)
        self.tasks = tasks

    def apply_async(  # type: ignore[override]
        self, args: Any = None, kwargs: Any = None, **options: Any
    ) -> Any:
        """Send the first task, which takes the others along; return the result of the last."""
        app = self.app
        if app.conf.task_always_eager:
            with canvas.allow_join_result():
                return self.apply(args, kwargs, **options)
        return self.run(args, kwargs, app=app, **{**self.options, **options})

    def run(
        self,
        args: Any = None,
        kwargs: Any = None,
        group_id: Any = None,
        chord: Any = None,
        task_id: Any = None,
        link: Any = None,
        link_error: Any = None,
        publisher: Any = None,
        producer: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        app: Any = None,
        group_index: Any = None,
        **options: Any,
    ) -> Any:
        """As `apply_async`; what only concerns the last task is named, the rest is the first's."""
        app = app or self.app
        args = (*args, *self.args) if args and not self.immutable else self.args
        tasks, results = self.prepare_steps(
            args, kwargs or [], self.tasks, root_id, parent_id, link_error, app,
            task_id, group_id, chord, group_index=group_index,
        )  # fmt: skip
        if not results:
            return None
        if link:
            tasks[0].extend_list_option("link", link)
        first = tasks.pop()
        if self._links_steps(app):
            options["chain"] = None
        else:  # the options may be those of a whole group: nothing in them is changed
            options["chain"] = (options["chain"] or []) + tasks if "chain" in options else tasks
        sent = first.apply_async(**options)
        return results[0] if tasks else sent

    def freeze(
        self,
        _id: Any = None,
        group_id: Any = None,
        chord: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        group_index: Any = None,
    ) -> Any:
        """Give all tasks their ids; return the result of the last."""
        _, results = self._frozen = self.prepare_steps(
            self.args, self.kwargs, self.tasks, root_id, parent_id, None, self.app,
            _id, group_id, chord, clone=False, group_index=group_index,
        )  # fmt: skip
        return results[0]

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp all tasks."""
        told = None if visitor is None else visitor.on_chain_start(self, **headers) or {}
        headers = self._stamp_headers(told, append_stamps, **headers)
        self.stamp_links(visitor, **headers)
        for task in self.tasks:
            task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chain_end(self, **headers)

    def prepare_steps(
        self,
        args: Any,
        kwargs: Any,
        tasks: Any,
        root_id: Any = None,
        parent_id: Any = None,
        link_error: Any = None,
        app: Any = None,
        last_task_id: Any = None,
        group_id: Any = None,
        chord_body: Any = None,
        clone: bool = True,
        from_dict: Any = Signature.from_dict,
        group_index: Any = None,
    ) -> tuple[list[Any], list[Any]]:
        """Return the tasks as they are sent and their results, the last one first."""
        app = app or self.app
        last = {"_id": last_task_id, "group_id": group_id, "chord": chord_body,
                "group_index": group_index}  # fmt: skip
        made = Preparation(
            app, args, kwargs, last,
            root_id=root_id, link_error=link_error, use_link=self._links_steps(app),
            clone=clone, from_dict=from_dict,
        )  # fmt: skip
        made.prepare(tasks)
        self.id = made.results[0].id if made.results else last_task_id
        return made.tasks, made.results

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the tasks here, one after the other; return the result of the last one that ran."""
        given = {**self.options, **options}
        link = given.pop("link", None)
        tasks = list(self.tasks)
        steps = [task for task in tasks if not is_empty_group(task)] or tasks[-1:]
        last: Any = None
        for n, task in enumerate(steps):
            step = task.clone()
            if link and n == len(steps) - 1:
                target = step.body if isinstance(step, canvas._chord) else step
                target.extend_list_option("link", link)
            if last is None:
                result = step.apply(args or (), kwargs or {}, **given)
            else:
                result = step.apply((last.get(),), None, **given)
            result.parent, last = last, result
            if isinstance(result, canvas.EagerResult) and result.state in (IGNORED, REJECTED):
                break
        return last

    @property
    def app(self) -> Any:
        """The app of the chain, or of its first task."""
        app = self._app
        if app is None:
            try:
                app = self.tasks[0].app
            except (LookupError, AttributeError):  # none, or one that is a plain dict yet
                pass
        return app or current_app

    def __repr__(self) -> str:
        if not self.tasks:
            return f"<{type(self).__name__}@{id(self):#x}: empty>"
        return remove_repeating_from_task(
            self.tasks[0]["task"], " | ".join(repr(task) for task in self.tasks)
        )


class chain(_chain):
    """Tasks one after the other; `chain(a, b, c)`, or of an iterable, is `a | b | c`."""

    def __new__(cls, *tasks: Any, **kwargs: Any) -> Signature:  # type: ignore[misc]
        if kwargs or not tasks or (len(tasks) == 1 and not is_list(tasks[0])):
            return super().__new__(cls, *tasks, **kwargs)
        made = fold_chain(tasks[0] if len(tasks) == 1 else tasks)
        if cls is not chain and isinstance(made, _chain) and not isinstance(made, cls):
            return super().__new__(cls, made.tasks, **kwargs)
        return made
