"""Waiting for results: lost connections and notices, busy loops, bounds of what is kept."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from helpers import BOUND, until

from fsdf_engine import default_engine, task_deco
from fsdf_engine import replies as replies_module
from fsdf_engine.brokers import redis_connection, redis_route, redis_subscriber
from fsdf_engine.engine import Engine
from fsdf_engine.errors import ResultTimeout, Unavailable
from fsdf_engine.pools.child import _Commits, _Owner
from fsdf_engine.replies import Replies
from fsdf_engine.stores.memory import MemoryStore

MEMORY = {"broker_kind": "memory", "is_using_rpc_mode": True}


class Proxy:
    """A TCP proxy that can forget its connections: nothing passes any more, and nobody is told."""

    def __init__(self, port):
        self.target, self.deaf = ("127.0.0.1", port), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.sockets = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self.sockets += [near, far]
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(*ends, self.deaf), daemon=True).start()

    def pump(self, source, sink, deaf):
        try:
            while data := source.recv(1 << 16):
                if not deaf.is_set():
                    sink.sendall(data)
        except OSError:
            pass

    def forget(self):
        self.deaf.set()
        self.deaf = threading.Event()  # of the connections to come

    def close(self):
        for sock in (self.listener, *self.sockets):
            sock.close()


@pytest.fixture
def proxy(own_redis):
    server = own_redis()
    proxy = Proxy(server.port)
    proxy.server = server
    yield proxy
    proxy.close()


def echo(n):
    return n


@pytest.fixture
def sides(proxy):
    """Declare a queue's task on both sides of the proxy: who pushes and waits, and who works."""
    urls = [f"redis://127.0.0.1:{proxy.port}", proxy.server.url]
    engines = [Engine({"REDIS_URL": url}) for url in urls]
    options = {"broker_kind": "redis_ack", "is_using_rpc_mode": True}
    yield lambda queue: [engine.task(echo, queue, **options) for engine in engines]
    for engine in engines:
        engine.close()


@pytest.fixture
def impatient(monkeypatch):
    for module in (redis_connection, redis_route, redis_subscriber):
        monkeypatch.setattr(module, "TIMEOUT", 0.2)


def test_a_result_is_found_although_the_network_has_forgotten_us(
    proxy, sides, impatient, monkeypatch
):
    monkeypatch.setattr(replies_module, "CHECK", (0.05, 0.4))
    monkeypatch.setattr(redis_subscriber, "DOUBTED", 0.01)
    near, far = sides("echo")
    later, far_later = sides("later")
    results = [near.push(n) for n in (1, 2)]
    third = later.push(3)
    proxy.forget()
    far.consume()
    assert results[0].get(BOUND) == 1

    async def wait():
        return await results[1].aget(BOUND)

    assert asyncio.run(wait()) == 2
    monkeypatch.setattr(replies_module, "CHECK", (BOUND, BOUND))
    far_later.consume()
    assert third.get(BOUND / 2) == 3  # the inbox has been told to connect anew


def test_an_inbox_notices_that_the_network_has_forgotten_it(proxy, sides, impatient, monkeypatch):
    monkeypatch.setattr(redis_subscriber, "IDLE", 0.05)
    monkeypatch.setattr(replies_module, "CHECK", (BOUND, BOUND))
    near, far = sides("echo")
    result = near.push(1)
    proxy.forget()
    far.consume()
    assert result.get(BOUND / 2) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="the system has no such option")
def test_the_system_asks_idle_connections_whether_the_server_is_there(own_redis):
    connection = redis_route.Route(own_redis().url, "").connection()
    connection.connect()
    assert 0 < connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 30
    connection.disconnect()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def deaf(request, monkeypatch):
    """A task whose results are stored, while no notice of them ever arrives."""
    if request.param == "redis":
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    task = task_deco("deaf", broker_kind=request.param, is_using_rpc_mode=True)(echo)
    store = default_engine().replies(task.options).store
    inbox = store.inbox
    monkeypatch.setattr(store, "inbox", lambda deliver, ids, **of: inbox(lambda *_: None, ids))
    return task


def test_no_timeout_is_raised_while_the_store_has_the_result(deaf):
    results = [deaf.push(n) for n in range(3)]
    deaf.consume()
    assert deaf.join(BOUND)
    until(lambda: all(r.status == "succeeded" for r in map(again, results)))
    assert results[0].get(timeout=0.01) == 0
    assert asyncio.run(results[1].aget(0.01)) == 1
    assert results[2].get(timeout=0) == 2
    with pytest.raises(ResultTimeout):
        default_engine().result("never", deaf.options).get(0.01)


def test_who_waits_long_looks_into_the_store(deaf, monkeypatch):
    monkeypatch.setattr(replies_module, "CHECK", (0.02, 0.1))
    results = [deaf.push(n) for n in range(2)]
    deaf.consume()
    assert results[0].get(BOUND) == 0
    assert asyncio.run(results[1].aget(BOUND)) == 1


def again(result):
    return default_engine().result(result.task_id, deaf_options())


def deaf_options():
    return default_engine().tasks()[0].options


class Slow(MemoryStore):
    """Counts what is read; the first read waits until it may go on."""

    def __init__(self):
        super().__init__()
        self.reads, self.go = [], threading.Event()

    def read(self, ids, *, final=False, layout=""):
        self.reads.append(sorted(ids))
        assert self.go.wait(BOUND)
        return super().read(ids, final=final, layout=layout)


def test_all_who_look_at_the_same_time_share_a_read():
    store = Slow()
    replies = Replies(store)
    looking = [threading.Thread(target=replies._look, args=((str(n),),)) for n in range(20)]
    looking[0].start()
    until(lambda: store.reads)
    for thread in looking[1:]:
        thread.start()
    until(lambda: len(replies._sought) == 19)
    store.go.set()
    for thread in looking:
        thread.join(BOUND)
    assert [len(ids) for ids in store.reads] == [1, 19]


@pytest.mark.parametrize("hanging", ["read", "watch"])
def test_a_store_that_hangs_keeps_nobody_longer_than_he_waits(hanging, monkeypatch):
    monkeypatch.setattr(replies_module, "LAST", 0.01)
    monkeypatch.setattr(replies_module, "CHECK", (0.01, 0.01))
    store, go = MemoryStore(), threading.Event()
    place = store if hanging == "read" else MemoryStore().inbox(lambda *_: None, list)
    monkeypatch.setattr(place, hanging, lambda *_, **__: (go.wait(BOUND), {})[1])
    if hanging == "watch":
        monkeypatch.setattr(store, "inbox", lambda *_, **__: place)
    replies = Replies(store)
    assert replies.wait("a", 0.03, "") is None
    assert list(replies.each(["a", "b"], 0.03)) == []
    assert asyncio.run(bounded(replies.await_("a", 0.03, ""), go)) is None
    assert not go.is_set()


async def bounded(waiting, go):
    try:
        return await waiting
    finally:
        asyncio.get_running_loop().call_later(0.05, go.set)  # the loop's end waits for its threads


def test_what_asking_a_store_raises_is_raised_to_who_waits(monkeypatch):
    store = MemoryStore()
    monkeypatch.setattr(store, "read", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Replies(store).wait("a", 0.0, "")


def test_a_store_that_fails_once_is_asked_once_more():
    store, failures = MemoryStore(), [Unavailable("gone"), Unavailable("gone")]
    read = store.read

    def failing(ids, **how):
        if len(failures) > 1:
            raise failures.pop()
        return read(ids, **how)

    store.read = failing
    from fsdf_engine.contracts import Record

    replies = Replies(store)
    waiting = threading.Thread(target=lambda: got.append(replies.wait("a", 0.0, "")))
    got = []
    store.inbox = lambda deliver, pending, **of: MemoryStore().inbox(deliver, pending)
    store.write([Record("a", b"{}")])
    waiting.start()
    waiting.join(BOUND)
    assert got == [b"{}"]


# ------------------------------------------------------------------ who receives


@pytest.fixture
def heard(redis_url, monkeypatch):
    """A task over Redis, and the threads in which its results were received."""
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    monkeypatch.setattr(replies_module, "CHECK", (BOUND, BOUND))  # no other way to the results
    monkeypatch.setattr(redis_subscriber, "ASIDE", BOUND)
    task = task_deco("heard", broker_kind="redis_ack", is_using_rpc_mode=True)(echo)
    store, threads = default_engine().replies(task.options).store, []
    inbox = store.inbox

    def listening(deliver, pending, **of):
        def note(id, body):
            threads.append(threading.current_thread())
            deliver(id, body)

        return inbox(note, pending, **of)

    monkeypatch.setattr(store, "inbox", listening)
    return task, threads


def one_after_the_other(task, count=5):
    for n in range(count):
        assert task.push(n).get(BOUND / 2) == n


def test_who_waits_alone_again_and_again_receives_by_himself(heard):
    task, threads = heard
    task.consume()
    until(lambda: one_after_the_other(task) or threads[-1] is threading.main_thread())
    one_after_the_other(task)
    assert set(threads[-5:]) == {threading.main_thread()}


def test_many_who_wait_in_threads_and_loops_get_their_results(heard):
    task, _ = heard
    task.consume()
    one_after_the_other(task)

    async def wait():
        for n in range(50):
            assert await task.push(n) == n

    failed = []

    def several(wait):
        try:
            wait()
        except BaseException as error:
            failed.append(error)

    waits = [lambda: asyncio.run(wait()), *[lambda: one_after_the_other(task, 50)] * 4]
    threads = [threading.Thread(target=several, args=(wait,)) for wait in waits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert not failed


def test_who_waits_long_leaves_the_receiving_to_the_inbox(heard, monkeypatch):
    task, threads = heard
    task.consume()
    until(lambda: one_after_the_other(task) or threads[-1] is threading.main_thread())
    default_engine().stop()
    monkeypatch.setattr(redis_subscriber, "LEAD", 0.01)
    result, inbox = task.push(7), next(t for t in threads if t is not threading.main_thread())
    threading.Timer(0.1, task.consume).start()
    assert result.get(BOUND / 2) == 7
    assert threads[-1] is inbox


def test_a_connection_that_ends_under_the_one_who_receives_is_replaced(heard):
    task, threads = heard
    task.consume()
    until(lambda: one_after_the_other(task) or threads[-1] is threading.main_thread())
    default_engine().stop()
    result = task.push(7)
    subscriber = default_engine().replies(task.options)._inbox._subscriber
    waiting = threading.Thread(target=lambda: got.append(result.get(BOUND / 2)))
    got = []
    waiting.start()
    until(lambda: subscriber._reader is not None)
    subscriber._shut()
    task.consume()
    waiting.join(BOUND)
    assert got == [7]


def test_an_outage_under_the_one_who_receives_is_no_error_of_his(heard, monkeypatch):
    task, threads = heard
    task.consume()
    until(lambda: one_after_the_other(task) or threads[-1] is threading.main_thread())
    default_engine().stop()
    result = task.push(7)
    subscriber = default_engine().replies(task.options)._inbox._subscriber
    subscribed, failures = subscriber._subscribed, [Unavailable("gone")]

    def failing(channels):
        if failures:
            raise failures.pop()
        return subscribed(channels)

    monkeypatch.setattr(subscriber, "_subscribed", failing)
    waiting = threading.Thread(target=lambda: got.append(result.get(BOUND / 2)))
    got = []
    waiting.start()
    until(lambda: subscriber._reader is not None)
    subscriber.hear(["fsdf:result:another"])
    until(lambda: not failures)
    task.consume()
    waiting.join(BOUND)
    assert got == [7]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
def test_who_is_interrupted_while_he_receives_loses_no_results(heard, caplog):
    task, threads = heard
    task.consume()
    until(lambda: one_after_the_other(task) or threads[-1] is threading.main_thread())
    default_engine().stop()

    def interrupt(*_):
        raise TimeoutError  # as many do; so does a socket

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        result = task.push(7)
        main = threading.main_thread().ident
        threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGUSR1)).start()
        with pytest.raises(TimeoutError, match="^$"):
            result.get(BOUND)
    finally:
        signal.signal(signal.SIGUSR1, before)
    task.consume()
    assert result.get(BOUND / 2) == 7
    one_after_the_other(task)
    assert not [record for record in caplog.records if record.name == "fsdf.redis"]


# ------------------------------------------------------------------ loops


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis_ack"])
def test_a_loop_whose_threads_are_all_busy_pushes_and_waits(kind, request, monkeypatch):
    if kind == "redis_ack":
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    task = task_deco("busy", broker_kind=kind, is_using_rpc_mode=True)(echo)
    task.consume()
    go = threading.Event()

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        blocked = asyncio.create_task(asyncio.to_thread(go.wait, BOUND))
        try:
            results = await asyncio.gather(*[task.apush(n) for n in range(20)])
            assert await asyncio.gather(*results) == list(range(20))
            elsewhere = default_engine().result(results[0].task_id, task.options)
            assert await elsewhere == 0
            with pytest.raises(ResultTimeout):
                await default_engine().result("never", task.options).aget(0.05)
            assert not blocked.done()
        finally:
            go.set()
            await blocked

    asyncio.run(main())


class Interrupts:
    """None come."""

    held = staticmethod(nullcontext)


def test_a_coroutine_in_a_child_process_stores_effects_without_its_loops_threads(monkeypatch):
    asked, go = [], threading.Event()
    commits = _Commits(None, Interrupts())
    monkeypatch.setattr(commits, "ask", lambda *request: asked.append(request))

    async def main():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        blocked = asyncio.create_task(asyncio.to_thread(go.wait, BOUND))
        await _Owner(commits, 7, ("", "")).acommit(None, ())
        go.set()
        await blocked

    asyncio.run(main())
    assert asked == [(7, ())]


# ------------------------------------------------------------------ bounds


def test_results_that_nobody_asks_for_are_bounded_by_bytes_and_read_again_if_asked_for():
    task = task_deco("unasked", **MEMORY)(lambda n: "x" * n)
    replies = default_engine().replies(task.options)
    results = [task.push(1 << 20) for _ in range(40)]
    task.consume()
    assert task.join(BOUND)
    until(lambda: not replies._expected)
    assert replies._bytes == sum(len(body) for _, body in replies._came.values())
    assert 0 < replies._bytes <= replies_module.KEPT_BYTES
    assert all(len(result.get(BOUND)) == 1 << 20 for result in results)
    assert replies._bytes == len(replies._came) == 0


def test_results_that_nobody_asks_for_are_dropped_in_time(monkeypatch):
    monkeypatch.setattr(replies_module, "KEPT_FOR", 0.0)
    task = task_deco("unasked", **MEMORY)(echo)
    replies = default_engine().replies(task.options)
    first = task.push(1)
    task.consume()
    until(lambda: replies._came)
    task.push(2)
    assert first.task_id not in replies._came
    assert first.get(BOUND) == 1


def test_an_id_given_twice_is_not_answered_with_the_result_of_its_first_message(monkeypatch):
    task = task_deco("twice", **MEMORY)(echo)
    task.consume()
    assert task.publish({"n": 1}, task_id="daily").get(BOUND) == 1
    assert task.publish({"n": 2}, task_id="daily").get(BOUND) == 2
    default_engine().stop()
    third = task.publish({"n": 3}, task_id="daily")
    with pytest.raises(ResultTimeout):
        third.get(0.01)
    task.consume()
    assert third.get(BOUND) == 3
