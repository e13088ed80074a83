"""Chords on Redis in Celery 5.7's keys, for backends whose chords the engine does not keep.

Beside the key of a saved group `G` lie: `G.j` how its tasks have ended (a sorted set by place, or a
list), `G.s` how many there are, `G.t` how many were added since, `G.d` which are counted, and `G.c`
who calls the body, or "done".
"""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any
from uuid import uuid4

from .. import states
from .._upward import LateModule
from ..exceptions import BackendStoreError, ChordError
from ..utils.functional import _regen
from .failing import chord_error
from .part import Part

__all__ = ["EXTEND", "PART", "CLEANUP", "RedisChords"]
logger = logging.getLogger("celery.backends.redis")
_public = LateModule("backends.redis")

# KEYS: G.j, G.t, G.s, G.d, G, G.c. ARGV: task id, what it ended with, '1' if ordered, place, life
# of the keys, life of G, life and token of a claim. Reply: {ended, added, size, 1 if who asks is to
# call the body}; {-1, 0, 0, 0} if it has been called. O(log tasks).
PART = """
if redis.call('GET', KEYS[6]) == 'done' then return {-1, 0, 0, 0} end
local ordered, life, saved = ARGV[3] == '1', tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('SADD', KEYS[4], ARGV[1] .. ':' .. ARGV[4]) == 1 then
    if ordered then redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2])
    else redis.call('RPUSH', KEYS[1], ARGV[2]) end
end
local ended = redis.call(ordered and 'ZCARD' or 'LLEN', KEYS[1])
if life > 0 then
    for n = 1, 4 do redis.call('EXPIRE', KEYS[n], life) end
    if saved > 0 then redis.call('EXPIRE', KEYS[5], saved) end
end
local added, size, claimed = redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3]), 0
if size and ended == tonumber(size) + tonumber(added or 0)
        and redis.call('SET', KEYS[6], ARGV[8], 'NX', 'EX', tonumber(ARGV[7])) then
    claimed = 1
end
return {ended, added, size, claimed}
"""

# KEYS: G.c, G.j, G.t, G.s, G.d. ARGV: token, life of the mark. Reply: 1, or 0 if the claim is not
# this token's any more. O(tasks).
CLEANUP = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
local life = tonumber(ARGV[2])
if life and life > 0 then redis.call('SET', KEYS[1], 'done', 'EX', life) end
return 1
"""

# KEYS: G.c, G.s. ARGV: token, life. Reply: 1 if the claim is this token's, also where it had ended
# and nobody else has taken it. O(1).
EXTEND = """
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if holder or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') and 1 or 0
"""


class RedisChords(Part):
    """The part of the Redis backend that counts chords. Its methods are those of the backend."""

    def _set_chord_key(self, key: Any, value: Any) -> Any:
        if isinstance(value, str) and len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError("value too large for Redis backend")
        return self.ensure(partial(self.client.set, ex=self.chord_expires or None), (key, value))

    def _part_keys(self, gid: Any) -> dict[str, Any]:
        return {end: self.get_key_for_group(gid, f".{end}") for end in "jtsdc"}

    def _count_size(self, group_id: Any, chord_size: int) -> None:
        """Tell how many tasks a header has. One that is sent again is a new one."""
        self.ensure(self.client.delete, (self.get_key_for_group(group_id, ".c"),))
        self._set_chord_key(self.get_key_for_group(group_id, ".s"), chord_size)

    def _save_header(self, header_result_args: Any) -> None:
        """Save a header whose results have a form of their own: the body gets them in that."""
        if isinstance(header_result_args[1], _regen):
            return
        header = self.app.GroupResult(*header_result_args)
        if any(isinstance(result, _public.GroupResult) for result in header.results):
            key = self.get_key_for_group(header.id)
            self._set_chord_key(key, self.encode({"result": header.as_tuple()}))

    def _unpack_chord_result(
        self,
        tup: Any,
        decode: Any,
        EXCEPTION_STATES: Any = states.EXCEPTION_STATES,
        PROPAGATE_STATES: Any = states.PROPAGATE_STATES,
    ) -> Any:
        _, id, state, value = decode(tup)
        if state in EXCEPTION_STATES:
            value = self.exception_to_python(value)
        if state in PROPAGATE_STATES:
            raise chord_error(f"Dependency {id} raised {value!r}", value)
        return value

    def _count_part(self, request: Any, state: str, result: Any) -> Any:
        """Count a task of a header; who is the last one calls the body. Blocks."""
        gid, place = request.group, request.group_index
        keys = self._part_keys(gid)
        told = self.encode([1, request.id, state, self.encode_result(result, state)])
        claim = max(5, int((self.app.conf.result_chord_join_timeout or 5.0) * 2))
        token = uuid4().hex
        ended, added, size, claimed = self._chord_part_return_script(
            keys=[*(keys[end] for end in "jtsd"), self.get_key_for_group(gid), keys["c"]],
            args=[request.id, told, 1 if self._chord_zset else 0,
                  "+inf" if place is None else place,
                  self.chord_expires or 0, self._chord_result_expires, claim, token],
            client=self.client,
        )  # fmt: skip
        if ended == -1 or not size or not claimed:
            return None
        callback = _public.maybe_signature(request.chord, app=self.app)
        try:
            values = self._header_values(gid, keys["j"], int(size) + int(added or 0))
            return self._call_claimed(gid, keys, callback, values, claim, token)
        except ChordError as error:
            return self._fail_counted(gid, keys, callback, error, error)
        except Exception as error:
            return self._fail_counted(
                gid, keys, callback, error, ChordError(f"Join error: {error!r}")
            )

    def _fail_counted(self, gid: Any, keys: Any, callback: Any, error: Any, told: Any) -> Any:
        logger.exception("Chord %r raised: %r", gid, error)
        try:
            return self.chord_error_from_stack(callback, told)
        finally:  # a copy of a task that comes later does not fail it once more
            self.client.delete(keys["s"])

    def _header_values(self, gid: Any, key: Any, total: int) -> Any:
        header = _public.GroupResult.restore(gid, app=self.app)
        if header is not None:
            header.on_ready()  # else joining would wait for it
            join = header.join_native if header.supports_native_join else header.join
            with _public.allow_join_result():
                return join(timeout=self.app.conf.result_chord_join_timeout, propagate=True)
        with self.client.pipeline() as pipe:
            asked = pipe.zrange(key, 0, -1) if self._chord_zset else pipe.lrange(key, 0, total)
            (told,) = asked.execute()
        return [self._unpack_chord_result(each, self.decode) for each in told]

    def _call_claimed(
        self, gid: Any, keys: Any, callback: Any, values: Any, claim: int, token: str
    ) -> Any:
        """Call the body, if the claim is still ours for as long as that may take."""
        life = self._chord_publish_claim_expires(claim, callback)
        if not self._chord_claim_extend_script(
            keys=[keys["c"], keys["s"]], args=[token, life], client=self.client
        ):
            logger.warning(
                "Chord callback for %r not published: dispatch claim is no longer owned by this"
                " worker", gid,
            )  # fmt: skip
            return None
        try:
            self.app.amqp._retry_publish(callback.delay, values)
        except Exception as error:
            logger.exception("Chord callback for %r raised: %r", gid, error)
            return self.chord_error_from_stack(callback, ChordError(f"Callback error: {error!r}"))
        finally:
            if not self._chord_cleanup_script(
                keys=[keys[end] for end in "cjtsd"],
                args=[token, max(claim * 2, 300)],
                client=self.client,
            ):
                logger.warning(
                    "Chord callback claim for %r was lost before cleanup; chord data was left for"
                    " expiry", gid,
                )  # fmt: skip
        return None

    def _chord_publish_claim_expires(self, initial_expires: int, callback: Any) -> Any:
        """Return for how many seconds a claim is to last, so that publishing may be repeated."""
        conf, options = self.app.conf, callback.options
        usual = conf.task_publish_retry_policy or {}
        policy = {**usual, **(options.get("retry_policy") or {})}
        if (timeout := conf.broker_connection_timeout) is None:
            return initial_expires * 2
        retry = options.get("retry")
        times = 0
        if conf.task_publish_retry if retry is None else retry:
            limits = (policy.get("max_retries", 3), usual.get("max_retries", 3), 3)
            times = max(0, int(next(limit for limit in limits if limit is not None)))
        timeout = max(0.0, float(timeout))
        start, step = policy.get("interval_start", 0), policy.get("interval_step", 0.2)
        most = policy.get("interval_max", 1)
        pauses = sum(min(float(start) + float(step) * n, float(most)) for n in range(times))
        return max(initial_expires, math.ceil((times + 1) * timeout + pauses + max(timeout, 1)))
