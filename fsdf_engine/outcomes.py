"""How a message's handling ends: outcomes, verdicts, and the pure mapping between them.

Named tuples: as dataclasses their making took a fifth of the time to import the package. Ask for
their type; two of different types may compare equal, and one without fields is false.
"""

from __future__ import annotations

import builtins
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence, Set
from types import ModuleType, TracebackType
from typing import Any, NamedTuple, TypeAlias, get_args

import orjson

from .errors import cause_of

State: TypeAlias = Mapping[str, Any]
_HEAP = 1 << 9  # the flag of a class that Python code has made
_CHAIN = ("__cause__", "__context__")
_REFERS = {*_CHAIN, "__suppress_context__", "exceptions"}
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
LATEST = 1e10  # no delay is as long, and no instant so late
REASON, TRACE = 4_000, 32_000  # characters that are kept of a reason, and of a traceback


class Deadline(BaseException):
    """Raised inside a run that has passed its deadline."""


class Interrupted(BaseException):
    """Raised inside a run for which a stopping worker waits no longer; its message goes back."""


_MEANT = (Deadline, Interrupted)  # for the run that makes a text


class Succeeded(NamedTuple):
    """The function returned."""

    value: Any = None


class Failed(NamedTuple):
    """The function raised, and no attempt is left.

    `trace` and `reason` are the error's texts, made where it was raised: what handles the
    outcome elsewhere never asks the error itself, which may block for ever.
    """

    error: BaseException
    trace: str = ""
    reason: str = ""


class Retry(NamedTuple):
    """The attempt failed and another follows after `delay` seconds; texts are as for `Failed`.

    With `changes` the message is sent anew in its own wire form, and this one acknowledged; which
    keys there can be is the codec's to say.
    """

    error: BaseException
    delay: float
    attempt: int  # the number of the attempt to come, from 0
    changes: State | None = None
    trace: str = ""
    reason: str = ""


class Continued(NamedTuple):
    """The run has no end to tell: its effects go on under the message's id, or nobody is to know.

    It is acknowledged.
    """


class Requeue(NamedTuple):
    """Not started, or not to be counted: back to the queue."""

    delay: float = 0.0


class Rejected(NamedTuple):
    """The function sent its message to the dead letters."""

    reason: str


class TimedOut(NamedTuple):
    """The run passed its `function_timeout`."""

    limit: float


class Expired(NamedTuple):
    """The message was too old when its turn came."""

    at: float


class Filtered(NamedTuple):
    """An equal message has been handled already."""

    key: str


class Revoked(NamedTuple):
    """Somebody cancelled the message."""


class Invalid(NamedTuple):
    """The body is no message, or does not fit the function."""

    reason: str


class Unknown(NamedTuple):
    """No task of this name is declared here; `reason` is a resolver's, if it gave one."""

    task: str
    reason: str = ""


class Deferred(NamedTuple):
    """To be judged again at an instant; goes back with its permit, not counted."""

    until: float
    permit: str | None = None


class Lost(NamedTuple):
    """Its workers, or the child processes of one, died too often: the message kills them."""

    deliveries: int
    exitcode: int | None = None  # of the last child, where it was children


class Crashed(NamedTuple):
    """The child process died during the run; repeated, but counted toward the poison limit."""

    exitcode: int


Outcome: TypeAlias = (
    Succeeded | Failed | Retry | Continued | Requeue | Rejected | TimedOut | Expired | Filtered
    | Revoked | Invalid | Unknown | Deferred | Lost | Crashed
)  # fmt: skip
_KINDS = frozenset(get_args(Outcome))
_FIELDS: Mapping[str, type | tuple[type, ...]] = {  # what can be in a field, by its annotation
    "BaseException": BaseException, "str": str, "int": int, "float": (float, int),
    "State | None": (dict, type(None)), "str | None": (str, type(None)),
    "int | None": (int, type(None)), "Any": object,
}  # fmt: skip
SUCCEEDED = Succeeded()  # of every run that returned None
ELSEWHERE = Succeeded(...)  # of one in another process that returned something, which stayed there


class Ack(NamedTuple):
    """Remove the message."""


class Release(NamedTuple):
    """Give it back, `delay` seconds from now on the server's clock; `state` returns with it.

    `state` is JSON under 1 KB. Without a delay the message is the first in line.
    """

    delay: float = 0.0
    state: State | None = None


class DeadLetter(NamedTuple):
    """Keep it apart with the reason, to be looked at and replayed."""

    reason: str
    trace: str = ""


Verdict: TypeAlias = Ack | Release | DeadLetter
ACK = Ack()


def unfit_outcome(outcome: Any, attempt: int) -> str | None:
    """Say why what others made is no outcome of this attempt; None: it is one. Pure."""
    if type(outcome) not in _KINDS:
        return "that is no outcome"
    for name, said in type(outcome).__annotations__.items():
        value, kind = getattr(outcome, name), getattr(said, "__forward_arg__", "")
        fits = issubclass(type(value), _FIELDS[kind])
        if not fits or (kind == "float" and not 0 <= value < LATEST):
            return f"its {name} is {text_of(value, repr)}"
    if type(outcome) is Retry and not attempt < outcome.attempt < 1 << 31:
        return f"attempt {outcome.attempt} does not follow on {attempt}"
    return None


def ended(outcome: Outcome) -> bool:
    """Say whether this outcome is the message's end; otherwise it comes back, or goes on."""
    if type(outcome) is Failed:
        return not issubclass(type(outcome.error), Interrupted)  # its `__class__` may be anything
    return type(outcome) not in (Requeue, Deferred, Retry, Crashed, Continued)


def trace_of(outcome: Failed | Retry) -> str:
    """Return the traceback as text, the engine's own frames left out."""
    if outcome.trace:
        return cut(outcome.trace, TRACE)
    error, tb = outcome.error, frames_of(outcome.error)

    def text(_: object) -> str:
        try:
            if _is_plain_chain(error):
                return "".join(traceback.format_exception(type(error), error, tb))
        except _MEANT:
            raise
        except BaseException:  # it looks into the error, which may be odd
            pass
        return "".join([*traceback.format_tb(tb), describe(outcome), "\n"])

    return text_of(error, text, TRACE)


def _is_plain_chain(error: BaseException) -> bool:
    """Say whether what an error refers to is what it was given: then there is an end to it."""
    group = getattr(builtins, "BaseExceptionGroup", None)
    left, seen = list[BaseException | None]([error]), set[int]()
    while left:
        if (each := left.pop()) is None or id(each) in seen:
            continue
        if overrides(type(each), _REFERS):
            return False
        seen.add(id(each))
        left += [BaseException.__dict__[name].__get__(each) for name in _CHAIN]
        if group and issubclass(type(each), group):
            left += group.__dict__["exceptions"].__get__(each)
    return True


def overrides(kind: type, names: Set[str]) -> bool:
    """Say whether Python code answers for one of these names in a class of exceptions."""
    flags, scope = type.__dict__["__flags__"], type.__dict__["__dict__"]
    bases = type.__dict__["__mro__"].__get__(kind)
    return any(flags.__get__(b) & _HEAP and scope.__get__(b).keys() & names for b in bases)


def frames_of(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback from the first frame that is not the engine's."""
    tb: TracebackType | None = BaseException.__dict__["__traceback__"].__get__(error)
    while tb and tb.tb_next and tb.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        tb = tb.tb_next  # a class of the user's may hide the attribute itself
    return tb


def text_of(value: object, convert: Callable[[object], str] = str, limit: int = REASON) -> str:
    """Return a value's text whatever it is: user code may fail here, and no UTF-8 carries all.

    Only what ends the run from outside is raised.
    Of what is longer than `limit` the middle is left out.
    """
    try:
        text = str.__str__(convert(value))  # of a subclass, too
        return cut(text.encode(errors="backslashreplace").decode(), limit)
    except _MEANT:
        raise
    except BaseException as error:
        return f"<{kind_of(value)[1]} without text: {kind_of(error)[1]}>"


def cut(text: str, limit: int) -> str:
    """Return a text without its middle where it is longer, and a note in its place."""
    if len(text) <= limit:
        return text
    first, last = limit * 2 // 3, limit // 3
    return f"{text[:first]} [... {len(text) - first - last} characters ...] {text[-last:]}"


def kind_of(value: object) -> tuple[str, str]:
    """Return the module and the name of a value's class, whatever a metaclass makes of them."""
    module, name = (type.__dict__[key].__get__(type(value)) for key in ("__module__", "__name__"))
    return module if type(module) is str else "", name


def args_of(error: BaseException) -> tuple[Any, ...]:
    """Return what an exception was made with, also where its class hides that."""
    try:
        args = error.args
    except _MEANT:
        raise
    except BaseException:
        args = ()
    return args if type(args) is tuple and args else BaseException.__dict__["args"].__get__(error)


def class_of(module: str, name: str) -> type[BaseException] | None:
    """Return a class of exceptions by its qualified name, if it is imported already.

    Runs no code of the user's.
    """
    found: Any = sys.modules.get(module)
    if not issubclass(type(found), ModuleType):
        return None
    scope = ModuleType.__getattribute__(found, "__dict__")
    for part in name.split("."):
        found = scope.get(part)
        if not issubclass(type(found), type):
            return None
        scope = type.__dict__["__dict__"].__get__(found)
    return found if issubclass(found, BaseException) else None


def rebuilt(module: str, name: str, args: Sequence[Any] | None) -> BaseException | None:
    """Return an exception of a class that is imported already; nothing is imported for it."""
    if args is None or (kind := class_of(module, name)) is None:
        return None
    try:
        error = kind(*args)
    except Exception:  # its constructor wants something else
        return None
    return error if type(error) is kind else None


def told(error: BaseException, note: str = "") -> str:
    """Return one line about an exception; a `Retry` is told with what it was raised for."""
    text = f"{kind_of(error)[1]}: {text_of(error)}".removesuffix(": ") + note
    cause = cause_of(error)
    return text if cause is None else cut(f"{text}; cause: {told(cause)}", REASON)


def describe(outcome: Outcome) -> str:
    """Return one line for people: how it ended, and why."""
    match outcome:
        case Failed(error) | Retry(error):
            return outcome.reason or told(error)
        case Rejected(reason) | Invalid(reason):
            return text_of(reason)
        case TimedOut(limit):
            return f"the run passed its limit of {limit:g} s"
        case Expired(at):
            instant = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
            return f"the message expired at {instant}"
        case Revoked():
            return "it was cancelled before it started"
        case Filtered(key):
            return f"an equal message has run before: {text_of(key)}"
        case Unknown(task, reason):
            why = f": {reason}" if reason else ""
            return f"no task named {text_of(task, repr)} is declared on this queue{why}"
        case Lost(1, None):
            return "its worker was lost, and the run with it"
        case Lost(1, code):
            return f"its child process died in the run, with exit code {code}"
        case Lost(deliveries, None):
            return f"its lease was lost {deliveries} times: its runs kill their worker"
        case Lost(times, code):
            return f"its child process died {times} times, the last with exit code {code}"
    return type(outcome).__name__.lower()


def verdict_for(outcome: Outcome, now: float, state: State | None = None) -> Verdict:
    """What the broker is told about an outcome; `state` is what comes back uncounted. Pure."""
    match outcome:
        case Succeeded() | Continued() | Expired() | Filtered() | Revoked():
            return ACK
        case Retry(_, delay, attempt):
            return Release(delay, {**(state or {}), "attempt": attempt})
        case Requeue(delay):
            return Release(delay, state)
        case Failed() if not ended(outcome):
            return Release(0.0, state)
        case Deferred(until, permit):
            kept = {**(state or {}), "permit": permit} if permit else state
            return Release(max(0.0, until - now), kept)
        case Crashed():
            return Release(0.0, {**(state or {}), "crashes": crashes(state) + 1})
        case Failed():
            return DeadLetter(describe(outcome), trace_of(outcome))
    kind = type(outcome).__name__.lower()
    return DeadLetter(f"{kind}: {describe(outcome)}")


def state_of(text: Any) -> State | None:
    """Return what a Release has left; None where another program has written something else."""
    try:
        state = orjson.loads(text)
    except (TypeError, ValueError):
        return None
    names = ("attempt", "crashes")
    counts = [state.get(name, 0) for name in names] if type(state) is dict else [-1]
    return state if all(type(n) is int and 0 <= n < 1 << 31 for n in counts) else None


def crashes(state: State | None) -> int:
    """Return how many child processes died in runs of this message."""
    return int(state.get("crashes", 0)) if state else 0
