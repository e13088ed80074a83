"""A run that goes on as another task, or adds one to its chord."""

from __future__ import annotations

from typing import Any

from .._engine.run import current_run
from ..canvas import _chain, group, signature
from ..exceptions import Ignore, ImproperlyConfigured
from ..utils.functional import maybe_list

__all__ = ["add_to_chord", "on_replace", "replace"]


def replace(self: Any, sig: Any) -> Any:
    """End this run; `sig` takes over its id, its place in a group, its links and its chain.

    Raises:
        Ignore: always, in a worker.
        ImproperlyConfigured: the signature is of a chord of its own, or an empty chain.
    """
    request = self.request
    if "chord" in sig.options:
        raise ImproperlyConfigured("A signature replacing a task must not be part of a chord")
    if isinstance(sig, _chain) and not getattr(sig, "tasks", True):
        raise ImproperlyConfigured("Cannot replace with an empty chain")
    sig = _ended(self.app, sig)
    for callback in maybe_list(request.callbacks) or []:
        sig.link(callback)
    for errback in maybe_list(request.errbacks) or []:
        sig.link_error(errback)
    if isinstance(sig, _chain) and "link" in sig.options:  # else they would be linked twice
        links = sig.tasks[-1].options.setdefault("link", [])
        links.extend(maybe_list(sig.options.pop("link")))
    sig.freeze(request.id)
    nesting = max(request.get("replaced_task_nesting", 0), _sends()) + 1
    sig.set(
        chord=request.chord,
        group_id=request.group,
        group_index=request.group_index,
        root_id=request.root_id,
        replaced_task_nesting=nesting,
    )
    if isinstance(sig, _chain):
        for task in maybe_list(sig.tasks) or []:
            task.set(replaced_task_nesting=nesting)
    for task in reversed(request.chain or []):
        task = signature(task, app=self.app)
        task.set(replaced_task_nesting=nesting)
        sig |= task
    return self.on_replace(sig)


def _sends() -> int:
    """Return how often the message of this run was sent; what takes over counts on from there."""
    run = current_run.get()
    sends = 0 if run is None else run.job.extra.get("sends")
    return sends if type(sends) is int else 0


def _ended(app: Any, sig: Any) -> Any:
    """Return the signature with one result: a group at its end becomes a chord's header."""
    if isinstance(sig, group):
        sig |= app.tasks["celery.accumulate"].s(index=0)
    if isinstance(sig, _chain) and isinstance(sig.tasks[-1], group):
        sig.tasks = list(sig.tasks)
        sig.tasks[-1] |= app.tasks["celery.accumulate"].s(index=0)
    return sig


def on_replace(self: Any, sig: Any) -> Any:
    """Send what replaces this run, or run it where that is eager; overrides call `super()`."""
    if self.request.is_eager:
        return sig.apply().get()
    sig.delay()
    raise Ignore("Replaced by new task")


def add_to_chord(self: Any, sig: Any, lazy: bool = False) -> Any:
    """Make `sig` one more member of this run's chord, and send it unless `lazy`.

    Raises:
        ValueError: this run is of no chord.
    """
    request = self.request
    if not request.chord:
        raise ValueError("Current task is not member of any chord")
    sig.set(
        group_id=request.group,
        group_index=request.group_index,
        chord=request.chord,
        root_id=request.root_id,
    )
    self.backend.add_to_chord(request.group, sig.freeze())
    return sig if lazy else sig.delay()
