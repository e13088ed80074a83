"""How signatures are put together: rules about groups, chains and chords in each other."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any

from .late import canvas
from .signature import Signature

__all__ = [
    "clear_chord_option", "clone_with_members", "first_task_options", "fold_chain",
    "is_chain_led_by_task", "is_empty_group", "link_error_to_body_tasks", "maybe_unroll_group",
    "merge_chain_step", "strip_chord_header_links",
]  # fmt: skip
# What a chain's `run` uses itself; its other options are those of its first task.
_OF_CHAINS = frozenset(
    {"chord", "group_id", "group_index", "link", "link_error", "parent_id", "root_id", "task_id"}
)


def maybe_unroll_group(group: Any) -> Any:
    """Return the only task of a group of one; another group as it is, and unread where lazy."""
    tasks = group.tasks
    try:
        size = len(tasks)
    except TypeError:
        try:
            size = tasks.__length_hint__()
        except (AttributeError, TypeError):
            return group
        tasks = tasks if size != 1 else list(tasks)
    return tasks[0] if size == 1 else group


def is_empty_group(task: Any) -> bool:
    """Say whether this is a group that has no tasks for sure: a chain goes on without it."""
    return (
        isinstance(task, canvas.group) and isinstance(task.tasks, (list, tuple)) and not task.tasks
    )


def is_chain_led_by_task(body: Any) -> bool:
    """Say whether this is a chain whose first step is one call, not one for each of a group."""
    return (
        isinstance(body, canvas._chain)
        and bool(body.tasks)
        and not isinstance(body.tasks[0], canvas.group)
    )


def first_task_options(chain: Any) -> dict:
    """Return the options that a chain hands to its first task."""
    return {k: v for k, v in chain.options.items() if k not in _OF_CHAINS}


# ------------------------------------------------------------------ a | b | c, all at once


def fold_chain(tasks: Iterable[Any]) -> Any:
    """Return what `a | b | c` gives, without cloning what is there already at each step."""
    tasks = list(tasks)
    steps: list[Any] = []
    ahead = iter(tasks)
    for n, task in enumerate(ahead):
        made = merge_chain_step(steps, task, n != len(tasks) - 1)
        if made is NotImplemented:
            return reduce(operator.or_, tasks, canvas._chain())
        if made is not steps:  # no chain any more: it goes on by its own operator
            return reduce(operator.or_, ahead, made)
    # tasks of an inner chain share its errbacks, and a visitor is to see one for each
    return canvas._chain([*(step.clone() for step in steps[:-1]), *steps[-1:]])


def merge_chain_step(steps: list[Any], other: Any, clone_other: bool = True) -> Any:
    """Add a step to those of a chain, as `|` would; return them, or what is no chain any more."""
    if type(other) is Signature and (not steps or type(steps[-1]) is Signature):  # as most are
        steps.append(other.clone() if clone_other else other)
        return steps
    if is_empty_group(other):
        return steps
    if isinstance(other, canvas.group):
        single = maybe_unroll_group(other)
        if single is not other:
            return merge_chain_step(steps, single, clone_other)
        return _merge_group(steps, other, clone_other)
    if isinstance(other, canvas._chain):
        return _merge_chain(steps, other, clone_other)
    if not isinstance(other, Signature):
        return NotImplemented
    if steps and isinstance(steps[-1], canvas.group):
        steps[-1] = canvas.chord(steps[-1], other.clone() if clone_other else other)
    elif steps and isinstance(steps[-1], canvas.chord) and not isinstance(other, canvas.chord):
        steps[-1].body = steps[-1].body | other
    else:
        steps.append(other.clone() if clone_other else other)
    return steps


def _merge_group(steps: list[Any], group: Any, clone: bool) -> Any:
    if not steps:
        return group
    if isinstance(steps[-1], canvas.chord):
        steps[-1].body = steps[-1].body | group
    else:
        steps.append(group.clone() if clone else group)
    return steps


def _merge_chain(steps: list[Any], chain: Any, clone: bool) -> Any:
    inner = chain.unchain_tasks()
    ahead = iter(inner)
    for n, task in enumerate(ahead):
        made = merge_chain_step(steps, task, clone or n != len(inner) - 1)
        if made is NotImplemented:
            return made
        if made is not steps:
            return reduce(operator.or_, ahead, made)
    return steps


# ------------------------------------------------------------------ chords in each other


def clear_chord_option(sig: Any) -> None:
    """Let what ends a signature not report to a chord."""
    sig.options.pop("chord", None)
    if isinstance(sig, canvas.group):
        for task in sig.tasks:
            clear_chord_option(task)
    elif isinstance(sig, canvas._chain) and sig.tasks:
        clear_chord_option(sig.tasks[-1])
    elif isinstance(sig, canvas._chord) and sig.body is not None:
        clear_chord_option(sig.body)


def strip_chord_header_links(sig: Any) -> None:
    """Take the bodies of chords out of their headers, in a copy that is to be sent.

    A chord that waits to be called has its body beside its header; `run` gives it to the tasks.
    """
    if isinstance(sig, canvas._chord):
        clear_chord_option(sig.tasks)
        strip_chord_header_links(sig.tasks)
        if sig.body is not None:
            strip_chord_header_links(sig.body)
    elif isinstance(sig, (canvas.group, canvas._chain)):
        for task in sig.tasks:
            strip_chord_header_links(task)


def clone_with_members(sig: Any) -> Any:
    """Return a copy whose links can be changed: also the tasks of a group, the body of a chord."""
    sig = canvas.maybe_signature(sig, clone=True)
    if isinstance(sig, canvas.group):
        sig.tasks = [clone_with_members(task) for task in sig.tasks]
    elif isinstance(sig, canvas._chord):
        sig.body = clone_with_members(sig.body)
    return sig


def link_error_to_body_tasks(sig: Any, errback: Any, runs_as_group: bool = True) -> None:
    """Link an errback to each task of a chord's body, but not to the headers of chords in it.

    A group with errbacks of its own replaces by them those of its tasks: there it is added to them,
    unless the group stands in a group, where it is unrolled and its options are dropped.
    """
    if isinstance(sig, canvas._chord):
        link_error_to_body_tasks(sig.body, errback)
    elif not isinstance(sig, canvas.group):
        sig.link_error(errback.clone())
    elif runs_as_group and sig.options.get("link_error") is not None:
        sig.append_to_list_option("link_error", errback.clone())
    else:
        for task in sig.tasks:
            link_error_to_body_tasks(task, errback, runs_as_group=False)
