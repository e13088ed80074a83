"""Waits for what workers do, in tests that run real ones."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

from kombu.exceptions import ContentDisallowed
from kombu.utils.functional import retry_over_time

from ... import states
from ...exceptions import TimeoutError as NotInTime
from ...result import ResultSet
from ...utils.text import truncate
from ...utils.time import humanize_seconds as _humanize_seconds

__all__ = ["Manager", "ManagerMixin", "Sentinel"]
humanize_seconds = partial(_humanize_seconds, microseconds=True)


class Sentinel(Exception):
    """What was waited for has not happened yet."""


class ManagerMixin:
    """What `Manager` can do, for a class that has an `app`."""

    app: Any

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,
        stdout: Any = None,
        stderr: Any = None,
    ) -> None:
        self.stdout, self.stderr = stdout or sys.stdout, stderr or sys.stderr
        self.connerrors = self.app.connection().recoverable_connection_errors
        self.block_timeout, self.no_join = block_timeout, no_join

    def remark(self, s: str, sep: str = "-") -> None:
        """Write a line."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Write a line to where errors go."""
        self.stderr.write(f"{s}\n")

    def missing_results(self, r: Iterable[Any]) -> list[str]:
        """Return the ids of those that have no result yet."""
        return [result.id for result in r if result.id not in result.backend._cache]

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: Sequence[Any] = (),
        kwargs: Any = None,
        errback: Callable[..., Any] | None = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> Any:
        """Call `fun` until it does not raise `catch`; return what it returns."""

        def on_error(exc: BaseException, intervals: Iterator[float], retries: int) -> float:
            interval = next(intervals)
            if emit_warning:
                when = humanize_seconds(interval, "in", " ")
                self.warn(f"Still waiting for {desc}.  Trying again {when}: {exc!r}")
            if errback:
                errback(exc, interval, retries)
            return interval

        return self.retry_over_time(
            fun,
            catch,
            args=args,
            kwargs=kwargs or {},
            errback=on_error,
            max_retries=max_retries,
            interval_start=interval_start,
            interval_step=interval_step,
            **options,
        )

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> None:
        """Fail if `fun` does not go on raising `catch` for a while."""
        try:
            self.wait_for(
                fun,
                catch,
                desc=desc,
                max_retries=max_retries,
                interval_start=interval_start,
                interval_step=interval_step,
                interval_max=interval_max,
                emit_warning=emit_warning,
            )
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """As kombu has it."""
        return retry_over_time(*args, **kwargs)

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for results, however often the connection is lost."""
        if self.no_join:
            return None
        results = r if isinstance(r, ResultSet) else self.app.ResultSet([r])
        received: list[str] = []
        for _ in range(max_retries) if max_retries else count():
            received.clear()
            try:
                return results.get(
                    callback=lambda id, value: received.append(id), propagate=propagate, **kwargs
                )
            except (TimeoutError, NotInTime) as error:
                missing = truncate(", ".join(self.missing_results(results)))
                left = len(results) - len(received)
                self.remark(f"Still waiting for {left}/{len(results)}: [{missing}]: {error!r}", "!")
            except self.connerrors as error:
                self.remark(f"join: connection lost: {error!r}", "!")
        raise AssertionError("Test failed: Missing task results")

    def inspect(self, timeout: float = 3.0) -> Any:
        """Return what asks the workers."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Iterator[Any]:
        """Yield (node, what it knows of these tasks)."""
        yield from (self.inspect(timeout).query_task(*ids) or {}).items()

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> Any:
        """Return the ids by state."""
        found = defaultdict(set)
        for _, reply in self.query_tasks(ids, timeout=timeout):
            for id, (state, _) in reply.items():
                found[state].add(id)
        return found

    def assert_accepted(
        self,
        ids: Any,
        interval: float = 0.5,
        desc: str = "waiting for tasks to be accepted",
        **policy: Any,
    ) -> Any:
        """Wait until they run."""
        more = {"interval": interval, "desc": desc, **policy}
        return self.assert_task_worker_state(self.is_accepted, ids, **more)

    def assert_received(
        self,
        ids: Any,
        interval: float = 0.5,
        desc: str = "waiting for tasks to be received",
        **policy: Any,
    ) -> Any:
        """Wait until a worker has them."""
        more = {"interval": interval, "desc": desc, **policy}
        return self.assert_task_worker_state(self.is_received, ids, **more)

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Any,
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until they run, by their results."""
        more = {"interval": interval, "desc": desc, **policy}
        asked = self.is_result_task_in_progress
        return self.assert_task_state_from_result(asked, async_results, **more)

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Any, interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until `fun` says so of the results."""
        asked = partial(self.true_or_raise, fun, results, timeout=interval)
        return self.wait_for(asked, (Sentinel,), **policy)

    assert_task_worker_state = assert_task_state_from_result

    @staticmethod
    def is_result_task_in_progress(results: Iterable[Any], **kwargs: Any) -> bool:
        """Say whether all have started."""
        return all(result.state in (states.STARTED, states.SUCCESS) for result in results)

    def is_received(self, ids: Any, **kwargs: Any) -> bool:
        """Say whether workers have all of them."""
        return self._ids_matches_state(["reserved", "active", "ready"], ids, **kwargs)

    def is_accepted(self, ids: Any, **kwargs: Any) -> bool:
        """Say whether all of them run."""
        return self._ids_matches_state(["active", "ready"], ids, **kwargs)

    def _ids_matches_state(self, expected: list[str], ids: Any, timeout: float = 0.5) -> bool:
        found = self.query_task_states(ids, timeout=timeout)
        known = set().union(*(found[state] for state in expected))
        return known.issuperset(ids)

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what `fun` returns; raise Sentinel if that is false."""
        if not (found := fun(*args, **kwargs)):
            raise Sentinel
        return found

    def wait_until_idle(self) -> None:
        """Delete what waits, and wait until nothing runs."""
        with self.app.connection() as connection:
            while self.app.control.purge(connection=connection):
                pass
            inspect = self.app.control.inspect()
            inspect.connection = connection
            try:
                while sum(len(tasks) for tasks in inspect.active().values()):
                    pass
            except ContentDisallowed:
                return


class Manager(ManagerMixin):
    """Waits for an app's workers."""

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
