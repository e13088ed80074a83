"""Backends whose results and chords the engine keeps: effects in a run, no polling for who waits.

The seam, for those who publish and those who run tasks:

- `backend.native` says that the engine of `backend.app` does the work. It is False without one,
  with a result serializer that is not JSON, and of a subclass that stores results in its own way:
  then the methods are called as they are, in the run.
- `backend.engine_options()` are the engine's options (`result_store`, `result_url`,
  `result_expires`) that a task's options need, so that the outbox has the right store;
  `backend.layout` is the `Layout` to name to `engine.replies`.
- `backend.record(task_id, state, result, traceback=None, request=None)` returns the `Record` of a
  state, and `backend.member(request, state, result)` the `Member` of a chord, or None. Both are
  pure. The record's fence (`deliveries`, `attempt`) and `reply` are filled in by who has the job:
  `fence(record, job)`.
- `with collected(effects):` lets all that is stored through a native backend (`store_result`,
  `mark_as_*`, `on_chord_part_return`) be appended to `effects` (Records and Members), as
  `app.amqp.collecting()` does with what is published. Outside it goes straight to the store.
- `backend.reply_to(ids, published)` returns the address for `extra.reply` of messages about to be
  published, "" as long as nobody has waited for a result in this process.
- `composer(app)` returns what `engine.compose` is to be set to; tasks whose messages may be members
  of chords need `joins_groups=True`.
- The app gives `app.engine_options(results=True)`: the engine's options of its broker and backend.

A chord is a group of the engine: its message is the body's signature, made a call when all members
have ended. Members are told apart by their task ids, so a second delivery of one counts once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from orjson import dumps

from fsdf_engine.contracts import Job, Layout, Member, Record

from .. import states
from .._engine.places import result_options
from .awaiting import Awaiting
from .native_chords import NativeChords, composer, life
from .payload import decompressed, json_of

__all__ = ["Native", "collected", "composer", "fence"]
NEWEST = 1 << 30  # `sends` of a success: whatever is stored later is older, as in Celery
PLACES = 1 << 31
_STATUS = re.compile(rb'\{"status": ?"([A-Z]+)"')
_collected: ContextVar[list[Any] | None] = ContextVar("collected", default=None)


@contextmanager
def collected(effects: list[Any]) -> Iterator[list[Any]]:
    """Let what native backends store be appended to `effects` instead."""
    token = _collected.set(effects)
    try:
        yield effects
    finally:
        _collected.reset(token)


def fence(record: Record, job: Job) -> Record:
    """Give a record what tells it from that of an older delivery, and who waits for it."""
    extra = job.extra
    if record.sends != NEWEST:
        record.sends = count if type(count := extra.get("sends")) is int else 0
    record.deliveries, record.attempt = job.delivery.deliveries, job.attempt
    record.reply = reply if type(reply := extra.get("reply")) is str else ""
    return record


def ended(body: bytes) -> bool:
    """Say whether a stored result, by whoever it was written, is an end.

    One that cannot be read is: who waits for it learns what is wrong with it.
    """
    if found := _STATUS.match(body):
        return found[1].decode() in states.READY_STATES
    try:
        return bool(body) and json.loads(decompressed(body))["status"] in states.READY_STATES
    except Exception:  # of JSON, or of any way to compress
        return True


class Native(Awaiting, NativeChords):
    """What a backend does natively; its class is a key-value one, too, and names `store`."""

    store = ""  # the engine's name of its result store
    collected = staticmethod(collected)
    # whoever overrides one of these does in his own way what the engine would do
    own = ("_store_result", "_get_task_meta_for", "decode", "encode", "get", "set", "_set",
           "get_key_for_task", "on_chord_part_return", "apply_chord", "_params_from_url",
           "redis", "client", "_get_client", "_get_pool")  # fmt: skip
    # what makes the record of a success
    making = ("record", "_record", "_get_result_meta", "encode_result", "prepare_value",
              "current_task_children", "expires_for_state")  # fmt: skip
    # settings of connections that are made in other ways than by a URL
    alone = ("redis_backend_use_ssl", "redis_backend_credential_provider", "redis_username",
             "redis_password")  # fmt: skip

    @property
    def native(self) -> bool:
        """Whether the engine keeps its results; constant once asked."""
        known = self.__dict__.get("_native")
        if known is None:
            known = self.__dict__["_native"] = self._is_native()
        return known

    def _is_native(self) -> bool:
        if getattr(self.app, "engine", None) is None or self.serializer != "json":
            return False
        if any(self.app.conf.get(key) for key in self.alone) or self._place is None:
            return False
        ours = next(cls for cls in type(self).__mro__ if "store" in cls.__dict__)
        return all(getattr(type(self), name) is getattr(ours, name) for name in self.own)

    @property
    def _place(self) -> Any:
        return self.url and result_options(self.url, self._transport_options)

    def engine_options(self) -> dict[str, Any]:
        """Return the engine's options of where results lie, and for how long."""
        return {**self._place, "result_expires": life(self.expires)}

    @property
    def layout(self) -> Layout:
        """Under which keys results lie."""
        prefix = self.task_keyprefix
        prefix = prefix.decode() if isinstance(prefix, bytes) else prefix
        return Layout(f"celery:{prefix}", prefix, ended)

    # ---------------------------------------------------------------- effects

    def record(
        self, task_id: str, state: str, result: Any, traceback: Any = None, request: Any = None
    ) -> Record:
        """Return what is stored of a state. `result` is a value or an exception; pure."""
        return self._record(task_id, state, self.encode_result(result, state), traceback, request)

    def _record(
        self, task_id: str, state: str, encoded: Any, traceback: Any, request: Any
    ) -> Record:
        meta = self._get_result_meta(
            result=encoded, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = task_id
        body = None if self.compression else json_of(meta)
        if body is None:
            body = self.encode(meta)
        return Record(
            task_id,
            body if isinstance(body, bytes) else body.encode(),
            final=state in states.READY_STATES,
            expires=life(self.expires_for_state(state)),
            sends=NEWEST if state == states.SUCCESS else 0,
            layout=self.layout_name,
        )

    def value_json(self, task_id: str, value: Any) -> bytes | None:
        """Return the JSON of a success's value, if `successes` knows all else of its record."""
        known, revision = self.__dict__.get("_usual"), self.app.conf.revision
        if known is None or known[0] is not revision:
            known = self.__dict__["_usual"] = revision, self._is_usual()
        return json_of(value) if known[1] and task_id.isascii() else None

    def _is_usual(self) -> bool:
        ours = next(cls for cls in type(self).__mro__ if "store" in cls.__dict__)
        made = all(getattr(type(self), name) is getattr(ours, name) for name in self.making)
        return made and self.native and not self.compression and not self._extends()

    def successes(self, jobs: Sequence[Job]) -> Iterator[Record]:
        """Yield the records of runs that have just succeeded, whose `told` is of `value_json`."""
        date = self.app.now().isoformat().encode()
        after = b',"traceback":null,"children":[],"date_done":"%b","task_id":' % date
        kept, layout = life(self.expires_for_state(states.SUCCESS)), self.layout_name
        for job in jobs:
            told: Any = job.told
            body = b'{"status":"SUCCESS","result":%b%b%b}' % (told, after, dumps(job.id))
            reply = reply if type(reply := job.extra.get("reply")) is str else ""
            lost, attempt = job.delivery.deliveries, job.attempt
            yield Record(job.id, body, lost, True, kept, reply, NEWEST, "", attempt, layout)

    @property
    def layout_name(self) -> str:
        """The name of `layout`, made once."""
        name = self.__dict__.get("_layout_name")
        if name is None:
            name = self.__dict__["_layout_name"] = self.layout.name
        return name

    def member(self, request: Any, state: str, result: Any) -> Member | None:
        """Return how a member of a chord ended; None of a task that is in none."""
        if not (group := getattr(request, "group", None)) or not request.id:
            return None
        place = getattr(request, "group_index", None)
        place = place if type(place) is int and 0 <= place < PLACES else 0
        root = getattr(request, "root_id", None) or request.id
        told = [request.id, state, self.encode_result(result, state), root]
        body = json_of(told) or self._encode(told)[2]
        failed = state in states.PROPAGATE_STATES
        return Member(
            group, request.id, body if isinstance(body, bytes) else body.encode(), failed, place
        )

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if (effects := _collected.get()) is None or not self.native:
            return super()._store_result(  # type: ignore[misc]
                task_id, result, state, traceback=traceback, request=request, **kwargs
            )
        effects.append(self._record(task_id, state, result, traceback, request))
        return result

    def keep_member(self, request: Any, state: str, result: Any) -> None:
        """Tell the group of a chord how a member ended; blocks where nothing is collected."""
        if (member := self.member(request, state, result)) is None:
            return
        if (effects := _collected.get()) is None:
            self.change_groups(lambda groups: groups.add([member]))
        else:
            effects.append(member)
