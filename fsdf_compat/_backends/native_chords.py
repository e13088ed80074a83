"""Chords as groups of the engine: opened by who sends the header, completed by who ends it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import uuid4

from kombu.exceptions import OperationalError

from fsdf_engine import Unavailable
from fsdf_engine.contracts import Completed, Group, Letter, Member, Outgoing

from .. import states
from .._app.repeating import again
from .._engine.errors import translating
from .._state import _task_stack
from .._upward import LateModule
from ..exceptions import ChordError
from ..utils.functional import _regen
from .failing import chord_error
from .part import Part

__all__ = ["NativeChords", "composer", "life"]
logger = logging.getLogger("celery.backends.base")
_public = LateModule("backends.base")


def life(seconds: Any) -> float:
    """Return for how long something lasts: for ever where nothing says so."""
    return float(seconds) if seconds else math.inf


class NativeChords(Part):
    """The part of a backend that keeps chords. Its methods are those of the backend."""

    _grouping: tuple[Any, Any] | None = None

    def grouping(self) -> Any:
        """Return the engine's groups of the app's messages."""
        engine = self.app.engine
        if self._grouping is None or self._grouping[0] is not engine.services.epoch:
            options = {**self.app.engine_options(results=True), "joins_groups": True}
            self._grouping = engine.services.epoch, engine.remote("chords", **options).grouping()
        return self._grouping[1]

    def change_groups(self, change: Callable[[Any], Any]) -> None:
        """Change the app's groups, which `change` gets. Blocks.

        It is called again as messages are published again, also where it has perhaps changed them:
        no change of groups does more the second time.

        Raises:
            kombu.exceptions.OperationalError: they cannot be reached.
            ImproperlyConfigured: a setting of where they are is wrong.
        """
        with translating():
            groups, begun = self.grouping(), time.monotonic()
            try:
                change(groups)
            except Unavailable as error:
                usual = self.app.amqp.usual()
                if not usual.retry:
                    raise
                call = partial(change, groups)
                again(self.app, call, error, begun, usual.policy, may_repeat=True)

    def open_chord(self, header_result_args: Any, body: Any) -> None:
        """Open the group of a chord; its size is told later. Blocks."""
        id, results = header_result_args
        told: dict[str, Any] = {"body": dict(body)}
        if not isinstance(results, _regen) and any(hasattr(r, "results") for r in results):
            told["header"] = [r.as_tuple() for r in results]  # the body gets values in that form
        form = self._encode(told)[2]
        form = form if isinstance(form, bytes) else form.encode()
        queue = self.app.amqp.wire_queue(self.app.conf.task_default_queue)
        message = Outgoing(queue, body.options.get("task_id") or id, form)
        opened = [Group(id, message, expires=life(self.chord_expires), run=_time_of(id))]
        self.change_groups(lambda groups: groups.open(opened))

    def chord_effects(self, done: Completed, refusal: str) -> Sequence[Any]:
        """Return what a completed chord sends: its body's call, or what its failure means."""
        effects: list[Any] = []
        told = self.decode(done.body.body)
        body = _public.maybe_signature(told["body"], app=self.app)
        with self.collected(effects), self.app.amqp.collecting() as outgoings:
            try:
                if refusal:
                    raise ChordError(f"Callback error: {refusal}")
                values = self._values(done)
            except ChordError as error:
                logger.exception("Chord %r raised: %r", done.id, error)
                if not refusal and self._calls_errbacks(body):
                    with self._as_last(done):
                        self._send_failure(body, error)
                else:
                    self.chord_error_from_stack(body, error)
            else:
                if (header := told.get("header")) is None:
                    given = list(values.values())
                else:
                    given = [_shaped(result, values) for result in header]
                with self._as_last(done):
                    body.delay(given)
        for member in (each for each in effects if type(each) is Member):
            self.grouping().add([member])  # of a chord that this one is in
        return [*(each for each in effects if type(each) is not Member), *outgoings]

    def _send_failure(self, body: Any, error: ChordError) -> None:
        """Let a chord fail in a run, in the pool, as user code is called; it tells who waits.

        On a queue that this worker serves, and nobody else by the same message.
        """
        served = self.app.amqp.queues.consume_from.items()
        plain = (name for name, queue in served if queue.exchange.type == "direct")
        cause = error.__cause__ and self.prepare_exception(error.__cause__)
        self.app.tasks["celery.chord_error"].apply_async(
            (body, str(error), cause), queue=next(plain, None)
        )

    @contextmanager
    def _as_last(self, done: Completed) -> Iterator[None]:
        """Let what is sent meanwhile be sent by a task of the header: that is its parent."""
        id, _, _, root = self.decode(done.members[-1].body)
        task = self.app.tasks["celery.chord"]
        _task_stack.push(task)
        task.push_request(id=id, root_id=root, called_directly=False)
        try:
            yield
        finally:
            task.pop_request()
            _task_stack.pop()

    def _values(self, done: Completed) -> dict[str, Any]:
        """Return what the tasks of a header have returned, by their ids, in order.

        Raises:
            ChordError: one has failed.
        """
        values = {}
        for member in done.members:
            id, state, value, _ = self.decode(member.body)
            if state in states.PROPAGATE_STATES:
                error = self.exception_to_python(value)
                raise chord_error(f"Dependency {id} raised {error!r}", error)
            values[id] = value
        return values


def _time_of(id: str) -> str:
    """Name one time that a chord is sent: a frozen one may be sent again, and is a new one then.

    In a run of a task that is known by the task, its retry and how often it has sent the chord: a
    message that is delivered once more sends the same one.
    """
    task = _task_stack.top
    request = task and task.request
    if not request or not request.id:
        return uuid4().hex
    sent: dict[str, int] = request.__dict__.setdefault("_chords_sent", {})
    sent[id] = sent.get(id, 0) + 1
    return f"{request.id}:{request.retries}:{sent[id]}"


def _shaped(result: Any, values: dict[str, Any]) -> Any:
    """Return the value of a result told of by `as_tuple`; of a group the list of its values."""
    own, nodes = result
    return values.get(own[0]) if nodes is None else [_shaped(node, values) for node in nodes]


def composer(app: Any) -> Callable[[Completed, str], Sequence[Any]]:
    """Return what an app's engine sends for completed chords."""

    def compose(done: Completed, refusal: str = "") -> Sequence[Any]:
        try:
            return app.backend.chord_effects(done, refusal)
        except Unavailable:
            raise
        except OperationalError as error:  # of a chord in this one; the claim brings it back
            raise Unavailable(str(error)) from error
        except Exception as error:
            logger.exception("Chord %r raised: %r", done.id, error)
            if refusal:
                reason = f"the body of chord {done.id} did not leave: {refusal}"
                return [Letter(done.body.queue, done.body.id, done.body.body, reason, "")]
            return app.backend.chord_effects(done, repr(error))

    # names this form of groups, whatever the package is called in this process
    compose.__module__, compose.__qualname__ = "fsdf_compat", "chords"
    return compose
