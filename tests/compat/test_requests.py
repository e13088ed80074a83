"""Classes of requests that users have made hear of their messages when Celery's would."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest
from helpers import BOUND, until

from fsdf_compat._engine.observed import overrides
from fsdf_compat.app.base import Celery
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import Ignore, Reject
from fsdf_compat.worker.request import Request


class Hearing(Request):
    """Notes which hooks were called, and what was stored by then."""

    told: list[tuple] = []

    def note(self, *what):
        self.told.append((*what, self.task.AsyncResult(self.id).state))

    def on_accepted(self, pid, time_accepted):
        self.note("accepted")
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime, **kwargs):
        failed, value, _ = failed__retval__runtime
        self.note("success", failed, failed or value)
        super().on_success(failed__retval__runtime, **kwargs)

    def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        self.note("failure", type(error).__name__, return_ok)
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_retry(self, exc_info):
        self.note("retry")
        super().on_retry(exc_info)

    def on_timeout(self, soft, timeout):
        self.note("timeout", soft, timeout)
        super().on_timeout(soft, timeout)

    def acknowledge(self):
        self.note("acknowledge", self.acknowledged)
        super().acknowledge()

    def reject(self, requeue=False):
        self.note("reject", requeue)
        super().reject(requeue)


class Raising(Request):
    def on_success(self, failed__retval__runtime, **kwargs):
        raise KeyError("mine")


@pytest.fixture
def app(quick_looks):
    made = Celery("requests", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.worker_hijack_root_logger = False
    made.conf.worker_enable_remote_control = False  # it takes half a second to stop
    Hearing.told = []
    yield made
    made.close()


def works(app):
    return start_worker(app, pool="threads", concurrency=2, perform_ping_check=False)


def told(count):
    until(lambda: len(Hearing.told) >= count)
    heard, Hearing.told[:] = list(Hearing.told), []
    return heard


@pytest.mark.parametrize("late", [False, True])
def test_hooks_are_called_when_the_end_is_stored(app, late):
    options = {"shared": False, "Request": Hearing, "acks_late": late}
    start = [("accepted", "PENDING")]
    early, end = (
        ([], [("acknowledge", False, None)]) if late else ([("acknowledge", False, "PENDING")], [])
    )

    def ends(state):
        return [(*each[:-1], state) for each in end]

    @app.task(**options)
    def add(x, y):
        return x + y

    @app.task(**options)
    def fail():
        raise ValueError("no")

    @app.task(bind=True, **options)
    def again(self):
        if not self.request.retries:
            raise self.retry(countdown=0)

    @app.task(**options)
    def refuse(kind):
        raise {"ignore": Ignore, "reject": Reject}[kind]()

    @app.task(**options)
    async def later():
        await asyncio.sleep(0)
        return "late"

    with works(app):
        add.delay(1, 2)
        succeeded = [("success", 0, "3", "SUCCESS"), *ends("SUCCESS")]
        assert told(3) == [*start, *early, *succeeded]
        later.delay()
        succeeded[0] = ("success", 0, "'late'", "SUCCESS")
        assert told(3) == [*start, *early, *succeeded]
        fail.delay()
        failed = [("success", 1, 1, "FAILURE"), ("failure", "ValueError", True, "FAILURE")]
        assert told(4) == [*start, *early, *failed, *ends("FAILURE")]
        again.delay()
        retried = [
            ("success", 1, 1, "RETRY"),
            ("failure", "Retry", True, "RETRY"),
            ("retry", "RETRY"),
        ]
        assert told(8)[: 4 + 1] == [*start, *early, *retried, *ends("RETRY")][:5]
        refuse.delay("ignore")
        ignored = [("success", 1, 1, "PENDING"), ("failure", "Ignore", True, "PENDING")]
        assert told(4) == [*start, *early, *ignored, *ends("PENDING")]


def test_limits_are_told_to_the_request(app):
    @app.task(shared=False, Request=Hearing, soft_time_limit=0.1, time_limit=0.3)
    def forever():
        while True:
            try:
                threading.Event().wait(0.05)
            except Exception:
                continue

    with works(app):
        forever.delay()
        heard = told(4)
    assert [each[:-1] for each in heard if each[0] == "timeout"] == [
        ("timeout", True, 0.1), ("timeout", False, 0.3),
    ]  # fmt: skip


def test_what_a_hook_raises_is_logged_and_changes_nothing(app, caplog):
    @app.task(shared=False, Request=f"{__name__}:Raising")
    def add(x, y):
        return x + y

    with works(app):
        assert add.delay(1, 2).get(timeout=BOUND) == 3
        until(lambda: re.search("Raising.on_success of .*add failed", caplog.text))


def test_a_class_that_overrides_no_hook_costs_nothing(app):
    class Plain(Request):
        def on_timeout(self, soft, timeout):
            """Called from outside of runs."""

    for kind in ("celery.worker.request:Request", Request, Plain):
        task = app.task(shared=False, name=str(kind), Request=kind)(lambda: None)
        assert not overrides(task)
