"""What other packages import from `utils`, `local`, `loaders` and beside: its edges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from helpers import BOUND, until
from hypothesis import given
from hypothesis import strategies as st

from fsdf_compat import bootsteps, platforms, states
from fsdf_compat.exceptions import Retry, SecurityWarning
from fsdf_compat.loaders import get_loader_cls
from fsdf_compat.loaders.app import AppLoader
from fsdf_compat.loaders.base import find_related_module
from fsdf_compat.local import PromiseProxy, Proxy
from fsdf_compat.utils.collections import BufferMap, LimitedSet
from fsdf_compat.utils.dispatch import Signal
from fsdf_compat.utils.functional import head_from_fun, lookahead, regen
from fsdf_compat.utils.graph import CycleError, DependencyGraph
from fsdf_compat.utils.imports import gen_task_name, symbol_by_name
from fsdf_compat.utils.saferepr import saferepr
from fsdf_compat.utils.serialization import get_pickleable_exception
from fsdf_compat.utils.text import remove_repeating_from_task, simple_format
from fsdf_compat.utils.time import remaining
from fsdf_compat.utils.timer2 import Timer

ROOT = Path(__file__).parent.parent.parent
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def code_ends(code: str, **environ: str) -> int:
    """Run code in a process of its own; return its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        timeout=BOUND,
        stderr=subprocess.DEVNULL,
    )
    return done.returncode


@given(st.lists(st.integers()), st.lists(st.integers(min_value=-3, max_value=12), max_size=6))
def test_lazy_list_is_the_list_however_it_is_read(items, places):
    lazy = regen(iter(items))
    for place in places:
        try:
            expected = items[place]
        except IndexError:
            with pytest.raises(IndexError):
                lazy[place]
        else:
            assert lazy[place] == expected
    assert list(lazy) == items == list(lazy)
    assert len(lazy) == len(items)


@given(st.lists(st.integers()))
def test_lookahead_pairs_each_with_the_next(items):
    assert list(lookahead(items)) == list(zip(items, [*items[1:], None]))


@given(values, st.integers(min_value=1, max_value=60))
def test_short_repr_has_its_brackets_in_pairs_and_never_raises(value, maxlen):
    full, short = saferepr(value, maxlevels=0), saferepr(value, maxlen=maxlen)
    if not isinstance(value, (str, bytes)) and all(c not in full for c in "'\""):
        for one, other in ("()", "[]", "{}"):
            assert short.count(one) == short.count(other)
    assert len(short) <= maxlen + 1000


def test_repr_survives_what_cannot_be_shown():
    class Odd:
        def __repr__(self) -> str:
            raise ValueError("no")

    loop: list[object] = [1]
    loop.append(loop)
    assert "Unrepresentable" in saferepr([Odd()])
    assert "Recursion on list" in saferepr(loop)
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert saferepr(deep, maxlevels=0).startswith("[[[")


def test_head_checks_arguments_as_the_function_does():
    def task(a, /, b, *rest, key, other=3, **more):
        raise AssertionError("never called")

    head = head_from_fun(task)
    head(1, 2, 3, key=4, extra=5)
    for args, kwargs in (((1,), {"key": 1}), ((), {"a": 1, "b": 2, "key": 3}), ((1, 2), {})):
        with pytest.raises(TypeError):
            head(*args, **kwargs)
    with pytest.raises(TypeError):
        head_from_fun(lambda a, b: 0)(1)


@given(st.lists(st.integers(min_value=0, max_value=30)), st.integers(min_value=1, max_value=8))
def test_limited_set_keeps_the_newest(items, maxlen):
    limited = LimitedSet(maxlen=maxlen)
    for item in items:
        limited.add(item)
    newest = list(dict.fromkeys(reversed(items)))[:maxlen]
    assert sorted(limited) == sorted(newest)
    assert list(limited) == newest[::-1]


def test_limited_set_forgets_what_is_old_but_keeps_a_rest():
    limited = LimitedSet(maxlen=10, expires=10, minlen=1)
    for number in range(3):
        limited.add(number, now=float(number))
    limited.purge(now=100.0)
    assert list(limited) == [2]


def test_buffers_drop_what_was_used_least_recently():
    buffers = BufferMap(maxsize=3)
    for key in "abca":
        buffers.put(key, key)
    assert {key: len(buffer) for key, buffer in buffers.items()} == {"c": 1, "a": 2}
    assert buffers.total == 3


def test_signal_calls_its_receivers_and_tells_what_they_raise(caplog):
    happened = Signal(name="happened")
    sender = object()

    @happened.connect(sender=sender)
    def one(**kwargs):
        return kwargs["value"]

    @happened.connect(weak=False)
    def two(**kwargs):
        raise ValueError("no")

    (first, answer), (second, error) = happened.send(sender, value=5)
    assert (first, answer, second) == (one, 5, two)
    assert isinstance(error, ValueError)
    assert "raised: ValueError('no')" in caplog.text
    assert [receiver for receiver, _ in happened.send(object(), value=5)] == [two]
    assert happened.disconnect(one, sender=sender)
    assert not happened.disconnect(one, sender=sender)


def test_signal_forgets_receivers_that_are_gone():
    happened = Signal()

    def receiver(**kwargs):
        return 1

    happened.connect(receiver)
    assert happened.has_listeners()
    del receiver
    assert not happened.has_listeners()
    assert happened.send(None) == []


def test_signal_refuses_receivers_that_take_no_keywords():
    with pytest.raises(ValueError, match="keyword"):
        Signal().connect(lambda sender: None)


def test_signal_of_a_task_that_is_not_made_connects_when_it_is():
    happened, made = Signal(), SimpleNamespace()
    promise = PromiseProxy(lambda: made)
    calls = []
    happened.connect(lambda **kwargs: calls.append(1), sender=promise, weak=False)
    happened.send(made)
    assert calls == []
    promise.anything = 1
    happened.send(made)
    assert calls == [1]


def test_promise_is_made_once_and_shows_what_it_stands_for():
    made = []

    def make():
        made.append(1)
        return test_promise_is_made_once_and_shows_what_it_stands_for

    promise = PromiseProxy(make)
    assert promise.__name__ == make().__name__
    assert promise.__module__ == __name__
    assert repr(promise).startswith("<function test_promise")
    assert len(made) == 2  # once here, once for the promise
    assert repr(Proxy(lambda: [1])) == "[1]"


def test_states_are_ordered_and_own_states_stand_between():
    assert states.state("PROGRESS") > states.state(states.STARTED)
    assert states.state("PROGRESS") < states.state(states.SUCCESS)
    assert max(map(states.state, (states.PENDING, states.RETRY, states.FAILURE))) == "FAILURE"


def test_names_are_shortened_where_they_begin_only():
    text = "tasks.add(2) | tasks.mul(3) | mytasks.add(1) | my-tasks.add(1)"
    short = "tasks.add(2) | mul(3) | mytasks.add(1) | my-tasks.add(1)"
    assert remove_repeating_from_task("tasks.add", text) == short
    with pytest.raises(ValueError, match="%q"):
        simple_format("%h-%q", {"h": "x"})


def test_task_of_main_takes_the_name_of_its_app():
    app = SimpleNamespace(main="proj")
    assert gen_task_name(app, "add", "__main__") == "proj.add"
    assert (
        gen_task_name(SimpleNamespace(main=None), "add", "no.such.module") == "no.such.module.add"
    )


def test_time_that_the_clock_skips_is_not_waited_for_twice():
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime(2026, 3, 29, 1, 30, tzinfo=berlin)  # half an hour before the gap
    assert remaining(start, timedelta(hours=1), now=start) == timedelta(hours=1)
    end = start.astimezone(timezone.utc) + remaining(start, timedelta(days=1), start, relative=True)
    assert end.astimezone(berlin) == datetime(2026, 3, 30, 0, 0, tzinfo=berlin)


def test_exceptions_that_cannot_be_pickled_are_told_by_what_stands_near():
    class Local(ValueError):
        pass

    near = get_pickleable_exception(Local("x"))
    assert type(near) is ValueError
    assert near.args == ("x",)
    assert str(Retry(exc=ValueError("x"), when=3)) == "Retry in 3s: ValueError('x')"


def test_timer_is_woken_by_what_is_due_before_its_next():
    timer, called = Timer(), threading.Event()
    timer.call_after(3600.0, lambda: None)
    try:
        timer.call_after(0.01, called.set)
        assert called.wait(BOUND)
    finally:
        timer.stop()
    assert not timer.is_alive()


CRASH = """
import threading
from fsdf_compat.utils.threads import bgThread
from fsdf_compat.utils.timer2 import Timer

class Crashing(bgThread):
    def body(self):
        raise ValueError("no")

class Failing(Timer):
    def _next_entry(self):
        raise ValueError("no")

{start}
threading.Event().wait(60)
"""


@pytest.mark.parametrize("start", ["Crashing().start()", "Failing().start()"])
def test_a_service_that_crashes_ends_its_process_as_a_signal_would(start):
    assert code_ends(CRASH.format(start=start)) == -signal.SIGTERM


def test_graph_puts_each_after_what_it_needs():
    graph = DependencyGraph([("a", ["b", "c"]), ("b", ["c"]), ("c", [])])
    assert graph.topsort() == ["c", "b", "a"]
    graph.add_edge("c", "a")
    with pytest.raises(CycleError):
        graph.topsort()


def test_blueprint_starts_in_order_and_stops_in_the_other():
    events = []

    class First(bootsteps.StartStopStep):
        def start(self, parent):
            events.append("start first")

        def stop(self, parent):
            raise ValueError("no")

    class Second(bootsteps.StartStopStep):
        requires = (First,)

        def start(self, parent):
            events.append("start second")

        def stop(self, parent):
            events.append("stop second")

    parent = SimpleNamespace(steps=[])
    blueprint = bootsteps.Blueprint(steps=[Second], name="of this test")
    blueprint.apply(parent)
    blueprint.start(parent)
    blueprint.stop(parent)
    blueprint.join(BOUND)
    assert events == ["start first", "start second", "stop second"]
    assert blueprint.human_state() == "terminating"


def test_loaders_are_found_by_name_and_modules_by_package(tmp_path, monkeypatch):
    assert get_loader_cls("app") is AppLoader is symbol_by_name("celery.loaders.app:AppLoader")
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text("import no_such_module_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_related_module("shop", "models") is None
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        find_related_module("shop.Config", "tasks")


def test_pid_file_of_a_process_that_is_gone_is_replaced(tmp_path, capsys):
    path = tmp_path / "pid"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(f"{gone.pid}\n")
    lock = platforms._create_pidlock(str(path))
    assert lock.read_pid() == os.getpid()
    lock.release()
    path.write_text(f"{os.getppid()}\n")
    with pytest.raises(SystemExit):
        platforms._create_pidlock(str(path))
    assert "already exists" in capsys.readouterr().err


DAEMON = """
import os, sys
from fsdf_compat.platforms import detached
parent = os.getpid()
with detached(workdir={folder!r}, umask="027"):
    with open("told", "w") as file:
        file.write(f"{{os.getpid() != parent}} {{os.getsid(0) != os.getpid()}}")
    os.rename("told", "done")
"""


def test_daemon_goes_on_in_the_background_and_the_command_ends(tmp_path):
    assert code_ends(DAEMON.format(folder=str(tmp_path))) == 0
    until((tmp_path / "done").exists)
    assert (tmp_path / "done").read_text() == "True True"
    assert (tmp_path / "done").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be told of it")
def test_root_is_warned_and_refused_with_pickle():
    with pytest.warns(SecurityWarning, match="--uid"):
        platforms.check_privileges({"json"})
