"""What is made of an outcome where the code ran: texts of errors, JSON of values, effects.

A value or an exception is the user's: what asks it for text may block, loop or never end. So `tell`
is part of the run, whose deadline holds for it, and the outbox sees bytes and plain text only.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import TypeGuard

from .. import codec, outcomes
from ..contracts import Effect, Job, Sink, Told
from ..errors import ArgumentError, FsdfError, SoftTimeLimit
from ..outcomes import SUCCEEDED, Failed, Outcome, Retry, Succeeded, kind_of, text_of
from .effects import UnfitEffect, check_effect

__all__ = ["RemoteError", "effects_of", "is_quiet", "stand_in", "tell", "unasked", "with_texts"]
_PLAIN = frozenset({str, int, float, bool, type(None)})
_OURS = (ArgumentError.__module__, Failed.__module__)
_OWN = {"__new__", "__init__", "__str__", "__repr__", "__getattribute__", "__setattr__", "__del__"}


class RemoteError(FsdfError):
    """Stands for an exception of another process, or one whose code is not to run here.

    Raised as a subclass that has the original's name and module.
    """


def tell(job: Job, outcome: Outcome | Told | bytes) -> Outcome:
    """Make of an outcome what needs the value, the error or the task: the last part of a run.

    Return the outcome to go on with; its effects are in `job.told`. Blocks as long as the user's
    value or error does.
    """
    if isinstance(outcome, bytes):
        job.told = outcome
        return SUCCEEDED
    if isinstance(outcome, Told):
        return _taken(job, outcome)
    if job.claims == []:  # its deadline has told how it ended
        return outcome
    if type(outcome) is Retry and outcome.changes:
        try:  # as they will arrive
            changes = codec.loads(codec.dumps(codec.plain(outcome.changes)))
            outcome = outcome._replace(changes=changes)
        except Exception as error:
            outcome = Failed(ArgumentError(f"a retry cannot change this: {text_of(error)}"))
    if type(outcome) is not Succeeded:
        outcome = with_texts(outcome, trace=type(outcome) is Failed or bool(job.plan.sinks))
    if not (sinks := job.plan.sinks):
        return outcome
    if json := _json_of(outcome, sinks):
        job.told = json
        return outcome
    job.told = told = effects_of(job, outcome)
    return told.outcome


def _taken(job: Job, told: Told) -> Outcome:
    """Take what a runner has told of a success in place of the sinks."""
    try:
        for effect in told.effects:
            check_effect(effect)
    except UnfitEffect as error:
        return tell(job, Failed(error))
    job.told = told
    return told.outcome


def _json_of(outcome: Outcome, sinks: Sequence[Sink]) -> bytes | None:
    """Return the value, for a sink that needs no more; None: without JSON, as that will say."""
    if type(outcome) is not Succeeded or len(sinks) != 1 or not getattr(sinks[0], "of_json", False):
        return None
    try:
        return codec.dumps(codec.plain(outcome.value))
    except (outcomes.Deadline, outcomes.Interrupted):
        raise
    except BaseException:  # of a user's class
        return None


# ------------------------------------------------------------------ texts


def with_texts(outcome: Outcome, *, trace: bool = True) -> Outcome:
    """Return an outcome with the texts of its error. Runs code of the error's class."""
    if not _lacks_texts(outcome):
        return outcome
    reason = outcomes.describe(outcome)  # first: what makes a trace swallows interrupts
    return outcome._replace(
        reason=reason, trace=outcomes.trace_of(outcome) if trace else outcome.trace
    )


def unasked(outcome: Outcome) -> Outcome:
    """Return an outcome with the texts that can be had without running code of the user's.

    Another exception takes the place of an error that would have to be asked.
    """
    if not _lacks_texts(outcome):
        return outcome
    args = BaseException.__dict__["args"].__get__(outcome.error)
    if not is_quiet(type(outcome.error)) or any(type(value) not in _PLAIN for value in args):
        trace = "".join(traceback.format_tb(outcomes.frames_of(outcome.error)))
        error = stand_in(*kind_of(outcome.error))
        outcome = outcome._replace(error=error, trace=f"{trace}{kind_of(error)[1]}\n")
    return with_texts(outcome)


def _lacks_texts(outcome: Outcome) -> TypeGuard[Failed | Retry]:
    if type(outcome) is Failed:
        return not outcome.reason and outcomes.ended(outcome)
    return type(outcome) is Retry and not outcome.reason


def is_quiet(kind: type | None) -> bool:
    """Say whether no code of the user's runs when an exception of this class is made or shown."""
    if type(kind) is not type:
        return False
    return kind.__module__ in _OURS or not outcomes.overrides(kind, _OWN)


def stand_in(module: str, name: str, *message: str) -> RemoteError:
    """Return an exception that is called as another one is."""
    kind: type[RemoteError] = type(name, (RemoteError,), {"__module__": module})
    return kind(*message)


# ------------------------------------------------------------------ effects


def effects_of(job: Job, outcome: Outcome) -> Told:
    """Return what the sinks make of an outcome.

    A value without a JSON form makes the run a failed one, and so does an effect that could not be
    published. A sink that fails keeps no other from telling how the run ended.
    """
    effects, error = _by_sinks(job, outcome)
    if error is not None and (type(outcome) is Succeeded or not outcomes.ended(outcome)):
        what = "the result cannot be stored" if type(outcome) is Succeeded else "cannot store"
        value = type(outcome) is Succeeded and not isinstance(error, UnfitEffect)
        late = isinstance(error, SoftTimeLimit)  # passed while the run was telling
        outcome = Failed(error if late else ArgumentError(f"{what}: {text_of(error)}"))
        outcome = with_texts(outcome)
        effects, again = _by_sinks(job, outcome)
        error = again if value else error
    return Told(outcome, effects, "" if error is None else f"cannot store: {text_of(error, repr)}")


def _by_sinks(job: Job, outcome: Outcome) -> tuple[Sequence[Effect], BaseException | None]:
    """Return the effects, and the error of a sink that failed."""
    effects: list[Effect] = []
    failure: BaseException | None = None
    for sink in job.plan.sinks:
        try:
            made = sink(job, outcome)
            for effect in made:
                check_effect(effect)
            effects += made
        except (outcomes.Deadline, outcomes.Interrupted):  # meant for the run that this is part of
            raise
        except BaseException as error:  # of a user's class, or a sink's own
            failure = error
    return effects, failure
