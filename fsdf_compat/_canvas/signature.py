"""`Signature`: one call of a task, as data."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, MutableSequence
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any

from kombu.utils.functional import reprcall
from kombu.utils.objects import cached_property

from .._state import current_app
from ..utils import abstract
from ..utils.functional import maybe_list
from ..utils.objects import getitem_property
from .late import canvas
from .stamping import stamp_links, stamps_of

__all__ = ["Signature"]


@abstract.CallableSignature.register
class Signature(dict):
    """The arguments and options of one call of a task: a dict, so that JSON can carry it.

    `task` may be a task, its name, or a signature's dict, which makes the others meaningless.
    """

    TYPES: dict[str, type[Signature]] = {}
    _app: Any = None
    _type: Any = None
    # who waits for a task would wait for ever if these were changed
    _IMMUTABLE_OPTIONS = {"group_id", "stamped_headers"}

    @classmethod
    def register_type(cls, name: str | None = None) -> Callable[[type], type]:
        """Return a decorator of classes that `from_dict` makes of dicts of this `subtask_type`."""

        def register(subclass: type) -> type:
            cls.TYPES[name or subclass.__name__] = subclass
            return subclass

        return register

    @classmethod
    def from_dict(cls, d: dict, app: Any = None) -> Any:
        """Return the signature that a dict is the form of, in the class that it names."""
        kind = cls.TYPES[d["subtask_type"]] if d.get("subtask_type") else cls
        if kind is not cls:
            return kind.from_dict(d, app=app)
        return Signature(d, app=app)

    def __init__(
        self,
        task: Any = None,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        type: Any = None,
        subtask_type: str | None = None,
        immutable: bool = False,
        app: Any = None,
        **ex: Any,
    ) -> None:
        self._app = app
        if isinstance(task, dict):
            super().__init__(task)
            return
        name = getattr(task, "name", canvas)
        if name is not canvas:
            self._type, task = task, name
        super().__init__(
            task=task,
            args=tuple(args or ()),
            kwargs=kwargs or {},
            options={**(options or {}), **ex},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    # ---------------------------------------------------------------- calling

    def __call__(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """Call the task here and now."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, None)
        return self.type(*args, **kwargs)

    def delay(self, *partial_args: Any, **partial_kwargs: Any) -> Any:
        """As `apply_async`, with the arguments themselves."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run the task in this process, as a worker would; given arguments come first."""
        given = {k: v for k, v in options.items() if v is not None}
        args, kwargs, options = self._merge(args, kwargs, given)
        return self.type.apply(args, kwargs, **options)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: Any = None, **options: Any
    ) -> Any:
        """Send the call; given arguments come first, given options win. Returns its result."""
        given = {k: v for k, v in options.items() if v is not None}
        send = self._apply_async
        if args or kwargs or given:
            args, kwargs, given = self._merge(args, kwargs, given)
        else:
            args, kwargs, given = self.args, self.kwargs, self.options
        return send(args, kwargs, **given)

    def _merge(
        self, args: Any = None, kwargs: Any = None, options: Any = None, force: bool = False
    ) -> tuple[Any, Any, Any]:
        """Return arguments and options with more of them; of an immutable one only options."""
        merged = self.options
        if options is not None:
            fixed = self._IMMUTABLE_OPTIONS.union(self.options.get("stamped_headers") or ())
            merged = {**self.options, **_without(options, fixed.intersection(self.options))}
        if self.immutable and not force:
            return self.args, self.kwargs, merged
        return (
            (*args, *self.args) if args else self.args,
            {**self.kwargs, **kwargs} if kwargs else self.kwargs,
            merged,
        )

    def clone(self, args: Any = None, kwargs: Any = None, **opts: Any) -> Any:
        """Return a copy, with more arguments and options."""
        get: Any = self.get
        if args or kwargs or opts:
            args, kwargs, opts = self._merge(args, kwargs, opts)
        else:
            args, kwargs, opts = get("args"), get("kwargs"), get("options")
        kind = get("subtask_type")
        fields = {
            "task": get("task"),
            "args": tuple(args),
            # its values are shared: among them are tasks, and iterators not to be used up
            "kwargs": dict(kwargs) if kwargs is get("kwargs") else kwargs,
            "options": deepcopy(opts) if opts else {},
            "subtask_type": kind,
            "immutable": get("immutable"),
        }
        make = Signature.from_dict if kind else Signature
        made = make(fields, app=self._app)
        made._type = self._type
        return made

    partial = clone

    def freeze(
        self,
        _id: Any = None,
        group_id: Any = None,
        chord: Any = None,
        root_id: Any = None,
        parent_id: Any = None,
        group_index: Any = None,
    ) -> Any:
        """Give the call its id, and what it is a part of; return its result, which is to come."""
        opts = self.options
        if "task_id" not in opts:
            opts["task_id"] = _id or canvas.uuid()
        if "reply_to" not in opts:
            opts["reply_to"] = self.app.thread_oid
        if group_id:
            opts.setdefault("group_id", group_id)
        for name, value in (("root_id", root_id), ("parent_id", parent_id), ("chord", chord)):
            if value:
                opts[name] = value
        if group_index is not None:
            opts["group_index"] = group_index
        return self.AsyncResult(opts["task_id"])

    _freeze = freeze

    def replace(self, args: Any = None, kwargs: Any = None, options: Any = None) -> Any:
        """Return a copy with other arguments or options, where they are given."""
        made = self.clone()
        for name, value in (("args", args), ("kwargs", kwargs), ("options", options)):
            if value is not None:
                made[name] = value
        return made

    def set(self, immutable: bool | None = None, **options: Any) -> Any:
        """Set options; returns itself."""
        if immutable is not None:
            self.set_immutable(immutable)
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:
        """Let it take no more arguments, or take them again."""
        self.immutable = immutable

    # ---------------------------------------------------------------- stamps

    def _stamp_headers(
        self,
        visitor_headers: Any = None,
        append_stamps: bool = False,
        self_headers: bool = True,
        **headers: Any,
    ) -> dict:
        return stamps_of(self.options, visitor_headers, append_stamps, self_headers, headers)

    def stamp(self, visitor: Any = None, append_stamps: bool = False, **headers: Any) -> Any:
        """Add headers that go with the call, and with its callbacks."""
        self.stamp_links(visitor, append_stamps, **headers)
        told = None if visitor is None else visitor.on_signature(self, **headers) or {}
        return self.set(**self._stamp_headers(told, append_stamps, **headers))

    def stamp_links(self, visitor: Any, append_stamps: bool = False, **headers: Any) -> None:
        """Stamp callbacks and errbacks."""
        stamp_links(self, visitor, append_stamps, headers)

    # ---------------------------------------------------------------- links

    def _with_list_option(self, key: str) -> Any:
        items = self.options.setdefault(key, [])
        if not isinstance(items, MutableSequence):
            items = self.options[key] = [items]
        return items

    def append_to_list_option(self, key: str, value: Any) -> Any:
        """Add to an option that is a list, once; returns the value."""
        items = self._with_list_option(key)
        if value not in items:
            items.append(value)
        return value

    def extend_list_option(self, key: str, value: Any) -> None:
        """Add several values, or one, to an option that is a list."""
        self._with_list_option(key).extend(maybe_list(value))

    def link(self, callback: Any) -> Any:
        """Have a call sent with the result when this one has succeeded; returns the callback."""
        return self.append_to_list_option("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Have a call made when this one has failed; returns the errback."""
        return self.append_to_list_option("link_error", errback)

    def on_error(self, errback: Any) -> Any:
        """As `link_error`, but returns this signature."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Any]:
        """Return itself and all its callbacks, in depth."""
        found = [self]
        for link in maybe_list(self.options.get("link")) or []:
            found += link.flatten_links()
        return found

    def __or__(self, other: Any) -> Signature:
        """Chain: what stands on the right is called with the result of what is on the left."""
        if isinstance(other, canvas._chain):
            return canvas._chain([self, *other.unchain_tasks()], app=self._app)
        if isinstance(other, canvas.group):
            return canvas._chain(self, canvas.maybe_unroll_group(other), app=self.app)
        if isinstance(other, Signature):
            return canvas._chain(self, other, app=self._app)
        return NotImplemented

    if TYPE_CHECKING:  # a dict's, which is not asked

        def __ror__(self, other: Any) -> Signature: ...

    def __ior__(self, other: Any) -> Any:
        """As `|`: a dict's own would merge."""
        return self.__or__(other)

    # ---------------------------------------------------------------- as an object

    def election(self) -> Any:
        """Have one of all workers run it."""
        kind, app = self.type, self.type.app
        id = self.options.get("task_id") or canvas.uuid()
        with app.producer_or_acquire(None) as producer:
            props = kind.backend.on_task_call(producer, id)
            task = self.clone(task_id=id, **props)
            app.control.election(id, "task", task, connection=producer.connection)
            return kind.AsyncResult(id)

    def reprcall(self, *args: Any, **kwargs: Any) -> str:
        """Return the call as text, with more arguments."""
        args, kwargs, _ = self._merge(args, kwargs, {}, force=True)
        return reprcall(self["task"], args, kwargs)

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __deepcopy__(self, memo: dict) -> dict:
        copied = memo[id(self)] = dict(self)
        copied["options"] = deepcopy(self.options, memo)  # arguments may be lazy
        return copied

    def __invert__(self) -> Any:
        return self.apply_async().get()

    def __reduce__(self) -> Any:
        return canvas.signature, (dict(self),)

    def __json__(self) -> dict:
        return dict(self)

    def __repr__(self) -> str:
        return self.reprcall()

    def items(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Yield pairs; keys are text."""
        for key, value in super().items():
            yield key.decode() if isinstance(key, bytes) else key, value

    @property
    def name(self) -> str:
        """The name of the task."""
        return self.task

    @cached_property
    def type(self) -> Any:
        """The task.

        Raises:
            NotRegistered: it is not known here.
        """
        return self._type or self.app.tasks[self["task"]]

    @cached_property
    def app(self) -> Any:
        """The app that it belongs to."""
        return self._app or current_app

    @cached_property
    def AsyncResult(self) -> Any:
        """What makes results of the task's app."""
        try:
            return self.type.AsyncResult
        except KeyError:
            return self.app.AsyncResult

    @cached_property
    def _apply_async(self) -> Any:
        try:
            return self.type.apply_async
        except KeyError:
            return partial(self.app.send_task, self["task"])

    id = getitem_property("options.task_id", "The id of the call.")
    parent_id = getitem_property("options.parent_id", "The id of the task that sends it.")
    root_id = getitem_property("options.root_id", "The id of the first task of the whole.")
    task = getitem_property("task", "The name of the task.")
    args = getitem_property("args", "Arguments by position.")
    kwargs = getitem_property("kwargs", "Arguments by name.")
    options = getitem_property("options", "Options of `apply_async`.")
    subtask_type = getitem_property("subtask_type", "The kind of signature.")
    immutable = getitem_property("immutable", "Whether it takes no more arguments.")


def _without(options: dict, names: set[str]) -> dict:
    return {k: v for k, v in options.items() if k not in names} if names else options
