"""`chord`: a group, and what is called with the list of its results."""

from __future__ import annotations

import warnings
from collections.abc import MutableSequence
from functools import partial
from typing import Any

from kombu.utils.objects import cached_property

from .._state import current_app
from ..exceptions import CPendingDeprecationWarning
from ..utils.functional import _regen, maybe_list
from ..utils.objects import getitem_property
from ..utils.text import remove_repeating_from_task
from .chain import _chain
from .group import group, maybe_group
from .late import canvas
from .shapes import (
    clone_with_members,
    first_task_options,
    link_error_to_body_tasks,
    maybe_unroll_group,
    strip_chord_header_links,
)
from .signature import Signature
from .stamping import stamp_task

__all__ = ["_chord"]
_DELAYS = ("countdown", "eta")
_HEADER_WARNING = (
    "chord.link_error() will link errbacks to the tasks of the header, too: set"
    " task_allow_error_cb_on_chord_header=True to have that now"
)


@Signature.register_type(name="chord")
class _chord(Signature):
    """A header, which is a group, and a body, which is called with the list of its results."""

    tasks = getitem_property("kwargs.header", "The tasks of the header.")
    body = getitem_property("kwargs.body", "What is called with their results.")

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the chord that a dict is the form of."""
        options = d.copy()
        args, options["kwargs"] = cls._unpack_args(**options["kwargs"])
        return cls(*args, **{**options, "app": app})

    @staticmethod
    def _unpack_args(header: Any = None, body: Any = None, **kwargs: Any) -> Any:
        return (header, body), kwargs

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: Any = "celery.chord",
        args: Any = None,
        kwargs: Any = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        parts = {
            **(kwargs or {"kwargs": {}}),
            "header": maybe_group(header, app),
            "body": canvas.maybe_signature(body, app=app),
        }
        super().__init__(task, args or (), parts, app=app, **options)
        self.subtask_type = "chord"

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send the header; `body` may be given now."""
        return self.apply_async((), {"body": body} if body else {}, **options)

    def __or__(self, other: Any) -> Signature:
        """Chain: a task follows the body."""
        if isinstance(other, group) and len(other.tasks) == 1:
            other = maybe_unroll_group(other)
        elif isinstance(other, (group, _chain)) or not isinstance(other, Signature):
            return super().__or__(other)
        made = self.clone()
        made.body = made.body | other
        return made

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        """Return a copy of the chord and of its body."""
        made = super().clone(*args, **kwargs)
        if "body" in made.kwargs:
            made.kwargs["body"] = canvas.maybe_signature(made.kwargs["body"], clone=True)
        return made

    def freeze(
        self,
        _id: Any = None,
        group_id: Any = None,
        chord: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        group_index: Any = None,
    ) -> Any:
        """Give header and body their ids; return the body's result, below it the header's."""
        if not isinstance(self.tasks, group):
            self.tasks = group(self.tasks, app=self.app)
        header = self.tasks.freeze(parent_id=parent_id, root_id=root_id, chord=self.body)
        self.id = self.tasks.id
        if self.body is None:
            return None
        result = self.body.freeze(
            _id, root_id=root_id, chord=chord, group_id=group_id, group_index=group_index
        )
        node, seen = result, set()
        while node.id not in seen:  # a body that is a chain has parents of its own
            seen.add(node.id)
            if node.parent is None:
                node.parent = header
                return result
            node = node.parent
        raise RuntimeError("Recursive result parents")

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp the tasks of the header, then the body."""
        tasks = self.tasks.tasks if isinstance(self.tasks, group) else self.tasks
        told = None if visitor is None else visitor.on_chord_header_start(self, **headers) or {}
        headers = self._stamp_headers(told, append_stamps, **headers)
        self.stamp_links(visitor, append_stamps, **headers)
        if isinstance(tasks, _regen):
            tasks.map(partial(stamp_task, visitor=visitor, append_stamps=append_stamps, **headers))
        else:
            for task in tasks:
                task.stamp(visitor, append_stamps, **headers)
        if visitor is not None:
            visitor.on_chord_header_end(self, **headers)
            if self.body is not None:
                told = visitor.on_chord_body(self, **headers) or {}
                self.body.stamp(
                    visitor, append_stamps, **self._stamp_headers(told, append_stamps, **headers)
                )

    # ---------------------------------------------------------------- calling

    def apply_async(  # type: ignore[override]
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: Any = None,
        producer: Any = None,
        publisher: Any = None,
        connection: Any = None,
        router: Any = None,
        result_cls: Any = None,
        **options: Any,
    ) -> Any:
        """Send the header; return the body's result. `countdown` and `eta` are the header's."""
        kwargs = dict(kwargs or {})
        args = (*args, *self.args) if args and not self.immutable else self.args
        body = kwargs.pop("body", None) or self.kwargs["body"]
        kwargs = {**self.kwargs["kwargs"], **kwargs}
        delay = {key: options.pop(key) for key in _DELAYS if options.get(key) is not None}
        links = {key: options.pop(key) for key in ("link", "link_error") if key in options}
        body = body.clone(**_body_options(options))
        app = self._get_app(body)
        if app.conf.task_always_eager:
            body = self._add_body_callbacks(body, {**self.options, **links})
            with canvas.allow_join_result():
                return self.apply(args, kwargs, body=body, task_id=task_id, **options)
        merged = {**self.options, **options, **links}
        for key in _DELAYS:  # of `run`, they are about looking whether the header has ended
            merged.pop(key, None)
        own_id = merged.pop("task_id", None)
        if delay:
            merged["header_delay"] = delay
        header = self._header(app)
        id = own_id if task_id is None else task_id
        return self.run(header, body, args, task_id=id, kwargs=kwargs, **merged)

    def _header(self, app: Any) -> Any:
        """Return a copy of the header, as a group; what is lazy stays so."""
        tasks = self.tasks
        if isinstance(tasks, group):
            return tasks.clone()
        if isinstance(tasks, MutableSequence) and not isinstance(tasks, _regen):
            tasks = tasks[:]
        return group(tasks, app=app, task_id=self.options.get("task_id") or canvas.uuid())

    def apply(
        self,
        args: Any = None,
        kwargs: Any = None,
        propagate: bool = True,
        body: Any = None,
        **options: Any,
    ) -> Any:
        """Run header and body here."""
        body = self.body if body is None else body
        tasks = self.tasks
        header = tasks.clone() if isinstance(tasks, group) else group(tasks, app=self.app)
        return body.apply(args=(header.apply(args or (), kwargs or {}).get(propagate=propagate),))

    @classmethod
    def _descend(cls, sig_obj: Any) -> int:
        """Count the ends of tasks that a signature gives, in a header, for its chord."""
        if not isinstance(sig_obj, Signature) and isinstance(sig_obj, dict):
            sig_obj = Signature.from_dict(sig_obj)
        if isinstance(sig_obj, group):
            return sum(map(cls._descend, getattr(sig_obj.tasks, "tasks", sig_obj.tasks)))
        if isinstance(sig_obj, _chain):  # its last step that is not empty
            return next((size for step in sig_obj.tasks[-1::-1] if (size := cls._descend(step))), 0)
        if isinstance(sig_obj, _chord):
            return cls._descend(sig_obj.body)
        return 1 if isinstance(sig_obj, Signature) else len(sig_obj)

    def __length_hint__(self) -> int:
        return sum(map(self._descend, getattr(self.tasks, "tasks", self.tasks)))

    _body_options = staticmethod(lambda options: _body_options(options))

    @staticmethod
    def _add_body_callbacks(body: Any, options: dict) -> Any:
        """Move `link` and `link_error` from options to a copy of the body; return that.

        The header must not get them. A group gives errbacks to its tasks; any other body keeps them
        in its options, where they are looked for when the header fails.
        """
        callbacks = maybe_list(options.pop("link", None)) or []
        errbacks = maybe_list(options.pop("link_error", None)) or []
        if callbacks or errbacks:
            body = clone_with_members(body)
        for callback in callbacks:
            callback = clone_with_members(canvas.maybe_signature(callback, app=body._app))
            if isinstance(body, group) and not body.tasks:
                body.append_to_list_option("link", callback)
            else:
                body.link(callback)
        for errback in errbacks:
            if isinstance(body, group):
                link_error_to_body_tasks(body, canvas.maybe_signature(errback, app=body._app))
            else:
                body.append_to_list_option("link_error", errback)
        return body

    def run(
        self, header: Any, body: Any, partial_args: Any, app: Any = None, interval: Any = None,
        countdown: Any = 1, max_retries: Any = None, eager: bool = False, task_id: Any = None,
        kwargs: Any = None, header_delay: Any = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Send a header for a body, and return the body's result; an empty one sends the body.

        `countdown`, `interval` and `max_retries` are about looking whether the header has ended,
        where the backend has to look.
        """
        app = app or self._get_app(body)
        id, root_id = header.options.get("task_id") or canvas.uuid(), body.options.get("root_id")
        options = {**self.options, **options}
        delay = {key: value for key in _DELAYS if (value := options.pop(key, None)) is not None}
        if options:
            options.pop("task_id", None)
            body = self._add_body_callbacks(body, options)
            body.options.update(_body_options(options))
        if isinstance(body, _chain):
            body._unroll_chords(app)
        result = body.freeze(task_id or canvas.uuid(), group_id=id, root_id=root_id)
        strip_chord_header_links(body)
        for key in ("chain", "chord", "task_id"):  # those of the body, not of the header
            options.pop(key, None)
        header.options["task_id"] = id
        frozen = header._freeze_group_tasks(group_id=id, chord=body, root_id=root_id)
        if header.tasks:
            looking = {"interval": interval, "countdown": countdown, "max_retries": max_retries}
            app.backend.apply_chord(frozen, body, **looking)
            options = {**options, **delay, **(header_delay or {})}
            result.parent = header.apply_async(partial_args, kwargs, task_id=id, **options)
        else:
            body.delay([])
            result.parent = self.app.GroupResult(*frozen)
        return result

    def _unroll_body(self) -> list[Any]:
        """Return the chord with the first task of its body, a chain, and the others after it.

        So the messages of the header have not the whole rest of the chain in them.
        """
        made = self.clone()
        first, *rest = made.body.unchain_tasks()
        made.body = first.clone(**first_task_options(made.body))
        return [made, *rest]

    # ---------------------------------------------------------------- links

    def link(self, callback: Any) -> Any:
        """Link to the body."""
        self.body.link(callback)
        return callback

    def link_error(self, errback: Any) -> Any:
        """Link to the body, and to the header's tasks where the settings say so."""
        errback = canvas.maybe_signature(errback)
        tasks = maybe_list(self.tasks) or []
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for task in tasks:
                task.link_error(errback.clone(immutable=True))
        else:
            warnings.warn(_HEADER_WARNING, CPendingDeprecationWarning, stacklevel=2)
        for task in tasks:
            if isinstance(task, _chord):
                task.link_error(errback)
        self.body.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Let the tasks of the header take no more arguments, or take them again."""
        for task in self.tasks:
            task.set_immutable(immutable)

    # ---------------------------------------------------------------- as an object

    def __repr__(self) -> str:
        if not (body := self.body):
            return f"<chord without body: {self.tasks!r}>"
        if isinstance(body, _chain):
            rest = canvas.chain(body.tasks[1:], app=self._app)
            return remove_repeating_from_task(
                body.tasks[0]["task"], f"%({body.tasks[0].reprcall(self.tasks)} | {rest!r})"
            )
        return "%" + remove_repeating_from_task(body["task"], body.reprcall(self.tasks))

    @cached_property
    def app(self) -> Any:
        """The app of the chord, else of its header, else of its body."""
        return self._get_app(self.body)

    def _get_app(self, body: Any = None) -> Any:
        app = self._app
        if app is None:
            tasks = getattr(self.tasks, "tasks", self.tasks)
            if tasks:
                app = self._app_of(tasks[0])
            if app is None and body is not None:
                app = self._app_of(body)
        return app if app is not None else current_app

    @staticmethod
    def _app_of(task: Any) -> Any:
        """Return the app of a task, or of what is in it; None if it has none of its own."""
        if task._app is not None:
            return task._app
        try:
            app = task.app
        except AttributeError:  # what is in it is a plain dict yet
            return None
        return None if app is current_app else app


def _body_options(options: dict) -> dict:
    """Return what the body gets of a chord's options; its parent is who ends the header."""
    return {k: v for k, v in options.items() if k != "parent_id"}
