"""What a chain becomes when it is sent: its steps, from the last one, with ids and links."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ..utils import abstract
from ..utils.functional import maybe_list
from .late import canvas
from .shapes import (
    is_chain_led_by_task,
    is_empty_group,
    maybe_unroll_group,
    strip_chord_header_links,
)
from .signature import Signature

__all__ = ["Preparation"]


class Preparation:
    """Prepares the steps of one chain, once.

    Nested chains are spliced in, a group before another step becomes a chord with it. `clone` says
    that the tasks are copies to be sent; without it the very tasks are frozen, and nothing else of
    them changes. `last` is what the last task is frozen with.
    """

    def __init__(
        self,
        app: Any,
        args: Any,
        kwargs: Any,
        last: dict[str, Any],
        *,
        root_id: Any,
        link_error: Any,
        use_link: Any,
        clone: bool,
        from_dict: Callable[..., Any],
    ) -> None:
        self._app, self._args, self._kwargs = app, args, kwargs
        self._last, self._root_id = last, root_id
        self._errbacks = maybe_list(link_error) or []
        self._use_link, self._clone, self._from_dict = use_link, clone, from_dict
        self._ahead: deque[Any] = deque()
        self.tasks: list[Any] = []
        self.results: list[Any] = []
        # the step after the one in hand, and the result that is to get that one's for its parent
        self._next: Any = None
        self._open: Any = None

    def prepare(self, tasks: Any) -> None:
        """Fill `tasks` and `results`, the last step first."""
        self._ahead.extend(tasks)
        self._normalise_head()
        while self._ahead:
            if (task := self._taken()) is not None:
                self._place(task)
        if self._clone:
            for task in self.tasks:
                if type(task) is not Signature:
                    strip_chord_header_links(task)

    def _normalise_head(self) -> None:
        """Let the first step be a task: it gets the arguments that the chain is called with."""
        ahead, empty = self._ahead, None
        while ahead:
            head = ahead[0]
            if not isinstance(head, abstract.CallableSignature):
                head = ahead[0] = self._from_dict(head, app=self._app)
            if isinstance(head, canvas._chain):
                ahead.popleft()
                ahead.extendleft(reversed((head.clone() if self._clone else head).tasks))
                continue
            if isinstance(head, canvas.group):
                head = ahead[0] = maybe_unroll_group(head)
            if len(ahead) == 1 or not is_empty_group(head):
                break
            empty = ahead.popleft()
        if empty is not None and not ahead:
            ahead.append(empty)

    def _taken(self) -> Any:
        """Take the last step that is left; None where others, or nothing, take its place."""
        task, is_first = self._ahead.pop(), not self._ahead
        if type(task) is Signature and self._clone:  # as most are
            return task.clone(self._args, self._kwargs) if is_first else task.clone()
        if not isinstance(task, abstract.CallableSignature):
            task = self._from_dict(task, app=self._app)
        if isinstance(task, canvas.group):
            task = maybe_unroll_group(task)
            if is_empty_group(task) and (self._ahead or self._next):
                return None
        if self._clone and isinstance(task, canvas.chord) and is_chain_led_by_task(task.body):
            self._ahead.extend(task._unroll_body())
            return None
        if self._clone:
            task = task.clone(self._args, self._kwargs) if is_first else task.clone()
        elif is_first:
            task.args = (*self._args, *task.args)
        if isinstance(task, canvas._chain):
            self._ahead.extend(task.tasks)
            return None
        return task

    def _place(self, task: Any) -> None:
        is_last, is_plain = not self.results, type(task) is Signature
        if not is_plain and self._next and isinstance(task, canvas.group):
            task = self._upgraded(task)
        if is_last:
            result = task.freeze(root_id=self._root_id, **self._last)
        else:
            result = task.freeze(root_id=self._root_id)
        if self._next:
            if self._use_link:
                task.link(self._next)
            if self._open and not self._open.parent:
                self._open.parent = result
        for errback in self._errbacks:
            task.link_error(errback)
            if isinstance(task, canvas.chord) and task.body:
                task.body.link_error(errback)
        self.tasks.append(task)
        self.results.append(result)
        self._next, self._open = task, result
        if not is_plain and isinstance(task, canvas.chord):
            self._app.backend.ensure_chords_allowed()
            while self._open.parent:  # its header's: what comes before is the parent of that
                self._open = self._open.parent

    def _upgraded(self, group: Any) -> Any:
        """Return the chord of a group and the step after it, which is its body now."""
        self.tasks.pop()
        result = self.results.pop()
        options = {"root_id": self._root_id, "app": self._app}
        id = getattr(self._open, "task_id", None)
        if id is not None:  # the result of a group has none
            options["task_id"] = id
        chord = canvas.chord(group, body=self._next, **options)
        self._next = self.tasks[-1] if self.tasks else None
        # The results of later steps hang on the body's: they are to hang on the chord's, or the
        # body's id would be among its parents twice.
        node = self.results[-1] if self.results else None
        while node is not None and node.parent is not result:
            node = node.parent
        if node is not None:
            node.parent = None
            self._open = node
        return chord
