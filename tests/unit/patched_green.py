"""What only a patched process shows: native threads beside greenlets, and brokers for them."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from foreign_rows import spoil_table

from fsdf_engine import green
from fsdf_engine.brokers.green import GreenBroker
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Capability
from fsdf_engine.offload import Offload
from fsdf_engine.testing.brokers import BrokerConformance, outgoing
from fsdf_engine.testing.pools import BOUND

SPIN = 0.3  # seconds that a greenlet computes without a switch


def test_the_library_is_active():
    assert green.active_hub() in ("gevent", "eventlet")


def test_native_thread_goes_on_while_a_greenlet_computes():
    ticks, stop = [], green.Event()

    def tick():
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    thread = green.native_thread(tick, "ticker")
    end = time.monotonic() + SPIN
    while time.monotonic() < end:  # no switch
        pass
    seen = len(ticks)
    stop.set()
    thread.join(BOUND)
    assert seen > 3
    assert not thread.is_alive()
    assert thread.ident not in (0, green.current_thread_id())


def test_greenlet_that_joins_a_native_thread_lets_others_run():
    go, ran = green.Event(), threading.Event()
    thread = green.native_thread(lambda: go.wait(BOUND), "waits")
    other = threading.Thread(target=lambda: (ran.set(), go.set()))
    other.start()
    thread.join(BOUND)
    assert ran.is_set()
    assert not thread.is_alive()


def test_native_thread_that_fails_ends():
    def fail():
        raise SystemExit

    thread = green.native_thread(fail, "fails")
    thread.join(BOUND)
    assert not thread.is_alive()


def test_event_wakes_greenlets_and_native_threads_set_by_either():
    for setter in (green.native_thread, lambda target, name: target()):
        event, done, woken = green.Event(), green.Event(), []

        def wait(event=event, done=done, woken=woken):
            woken.append(event.wait(BOUND))
            if len(woken) == 6:
                done.set()

        for n in range(3):
            green.native_thread(wait, f"native {n}")
            threading.Thread(target=wait).start()
        setter(event.set, "setter")
        assert done.wait(BOUND)
        assert woken == [True] * 6


def test_event_whose_time_ends_as_it_is_set_loses_nobody():
    """Storms of waits that time out against sets from a native thread."""
    for _ in range(30):
        event, ended = green.Event(), []

        def wait(event=event, ended=ended):
            while not event.wait(0.001):
                pass
            ended.append(1)

        waiters = [threading.Thread(target=wait) for _ in range(5)]
        for waiter in waiters:
            waiter.start()
        pause = green.Event()
        pause.wait(0.003)
        green.native_thread(event.set, "setter").join(BOUND)
        for waiter in waiters:
            waiter.join(BOUND)
        assert len(ended) == 5


def test_offloaded_call_blocks_the_greenlet_only():
    offload, lock, order = Offload(), green.native_lock(), []
    lock.acquire()

    def other():
        order.append("other")
        lock.release()

    threading.Thread(target=other).start()
    assert offload(lock.acquire)  # natively: nothing in this hub could run if it blocked here
    order.append("offloaded")
    assert order == ["other", "offloaded"]
    offload.close()


def test_offloaded_call_raises_what_it_raised():
    offload = Offload()
    for kind in (ValueError, SystemExit, KeyboardInterrupt):

        def fail(kind=kind):
            raise kind("why")

        with pytest.raises(kind, match="why"):
            offload(fail)
    assert offload(divmod, 7, 2) == (3, 1)
    offload.close()


def test_many_blocking_calls_do_not_keep_another_from_running():
    """As many consumers wait as there are queues; a settle must not wait for them."""
    offload, lock = Offload(), green.native_lock()
    lock.acquire()
    waiters = [
        threading.Thread(target=lambda: (offload(lock.acquire), lock.release())) for _ in range(40)
    ]
    for waiter in waiters:
        waiter.start()
    assert offload(divmod, 7, 2) == (3, 1)
    lock.release()
    for waiter in waiters:
        waiter.join(BOUND)
        assert not waiter.is_alive()
    offload.close()


class TestGreenSqlite(BrokerConformance):
    """The adapter must change nothing but who waits."""

    @pytest.fixture
    def broker(self, tmp_path):
        return GreenBroker(SqliteBroker(str(tmp_path / "q.sqlite")))

    def spoil(self, broker, queue):
        return spoil_table(broker, queue)


def test_adapter_adds_one_capability(tmp_path):
    inner = SqliteBroker(str(tmp_path / "q.sqlite"))
    broker = GreenBroker(inner)
    assert broker.capabilities == inner.capabilities | Capability.GREEN_SAFE
    assert Capability.GREEN_SAFE not in inner.capabilities
    inner.capabilities &= ~Capability.PRIORITY  # as where a server lacks it
    assert broker.capabilities == inner.capabilities | Capability.GREEN_SAFE
    assert broker.capabilities_of("q") == broker.capabilities


def test_waiting_for_a_message_lets_other_greenlets_publish(tmp_path):
    broker = GreenBroker(SqliteBroker(str(tmp_path / "q.sqlite")))
    sub = broker.subscribe("conformance", lease=30.0)
    assert not sub.fetch(1, 1000)
    threading.Thread(target=lambda: broker.publish([outgoing(1)])).start()
    started = time.monotonic()
    sub.wait(BOUND)
    assert sub.fetch(1, 1000)
    assert time.monotonic() - started < BOUND
    sub.close()
    broker.close()


def test_native_threads_and_greenlets_log_at_once(tmp_path):
    """Also through a handler that was there before, and without waiting for ever."""
    log = logging.getLogger("test.at_once")
    log.propagate = False
    before = logging.FileHandler(tmp_path / "before")
    log.addHandler(before)
    ended = green.Event()
    left = list(range(4))

    def write(lines=5_000):
        for n in range(lines):
            log.warning("line %d", n)
        left.pop()
        if not left:
            ended.set()

    threads = [green.native_thread(write, f"writer {n}") for n in range(3)]
    log.addHandler(after := logging.FileHandler(tmp_path / "after"))
    green.hub().spawn(write)
    assert ended.wait(60)
    for thread in threads:
        thread.join(10)
    log.handlers.clear()
    for handler in (before, after):
        handler.close()
    assert len((tmp_path / "before").read_text().splitlines()) == 20_000
