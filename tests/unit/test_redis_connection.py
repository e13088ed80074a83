"""Connections to Redis: what they refuse, survive and never repeat."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import shutil
import subprocess
import threading
import time
from pathlib import Path

import hiredis
import pytest
import redis
from helpers import BOUND, free_port, until

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.brokers.redis_connection import (
    Connection,
    Connections,
    Script,
    Unanswered,
    failure,
    translated,
    uptime_of,
)
from fsdf_engine.errors import (
    BrokerError,
    ConfigurationError,
    PublishError,
    ServerRefused,
    Unavailable,
)
from fsdf_engine.testing.brokers import outgoing

ECHO = Script("return ARGV[1]")


def test_commands_of_a_call_are_answered_in_order(redis_url):
    line = Connection(redis_url, [ECHO])
    replies = line.call(("SET", "k", b"\x00\xff"), ("GET", "k"), ECHO([], "x"), ("INCRBY", "n", 2))
    assert replies == [b"OK", b"\x00\xff", b"x", 2]
    line.close()


def test_script_that_the_server_forgot_is_loaded_again_and_nothing_else_repeated(redis_url):
    line = Connection(redis_url, [ECHO])
    line.call(("SCRIPT", "FLUSH"))
    assert line.call(("INCR", "n"), ECHO([], "x"), ("INCR", "n")) == [1, b"x", 2]
    line.close()


def test_error_replies_raise_after_all_were_read(redis_url):
    line = Connection(redis_url)
    with pytest.raises(ServerRefused, match="rename the queue"):
        line.call(("SET", "k", 1), ("LPUSH", "k", 1), ("SET", "after", 2))
    assert line.call(("GET", "after")) == [b"2"]
    line.close()


@pytest.mark.parametrize("odd", ["", "none", "error", "both"])
def test_commands_in_bytes_are_answered_one_by_one(redis_url, odd):
    line = Connection(redis_url, [ECHO])
    sets = [("SET", f"k{n}", "x" * 100, "NX") for n in range(5000)]
    expected: list[object] = [b"OK"] * 5000
    if odd in ("none", "both"):
        line.call(("SET", "k70", 1), ("SET", "k4999", 1))
        expected[70] = expected[4999] = None
    if odd in ("error", "both"):
        sets[3000] = ("SET", "k3000")
    many = b"".join(map(hiredis.pack_command, sets))
    replies = line.exchange([many, ECHO([], "+OK\r\n"), ("GET", "k1")], more=4999)
    if odd in ("error", "both"):
        assert isinstance(failure(replies[3000]), BrokerError)
        expected[3000] = replies[3000]
    assert replies == [*expected, b"+OK\r\n", b"x" * 100]
    line.call(("SCRIPT", "FLUSH"))
    assert line.exchange([many, ECHO([], "x")], more=4999)[4999:] == [None, b"x"]
    line.close()


def test_every_thread_gets_its_own_answers(redis_url):
    lines, wrong = Connections(redis_url, [ECHO]), []

    def ask(name: str) -> None:
        for n in range(200):
            if lines.to().call(ECHO([], f"{name}{n}")) != [f"{name}{n}".encode()]:
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    lines.close()


def test_late_is_called_after_the_patience_and_its_answer_is_awaited(redis_url):
    line, other = Connection(redis_url), Connection(redis_url)
    line.open()
    began = time.monotonic()
    replies = line.call(
        ("PING",),
        ("BLMOVE", "q", "q", "RIGHT", "RIGHT", BOUND),
        patience=0.05,
        late=lambda: other.call(("CLIENT", "UNBLOCK", line.id)),
    )
    assert replies == [b"PONG", None]
    assert 0.04 < time.monotonic() - began < BOUND / 2
    line.close()
    other.close()


def test_idle_connection_that_the_server_closed_is_replaced_before_anything_is_sent(
    redis_url, monkeypatch
):
    monkeypatch.setattr("fsdf_engine.brokers.redis_connection.STALE", 0.0)
    line, other = Connection(redis_url), Connection(redis_url)
    first = line.open()
    other.call(("CLIENT", "KILL", "ID", first))
    assert line.call(("INCR", "n")) == [1]
    assert line.id != first
    line.close()
    other.close()


def test_connection_lost_after_sending_is_unanswered_and_not_repeated(own_redis):
    server = own_redis()
    line, watch = Connection(server.url), Connection(server.url)
    line.open()
    caught: list[BaseException] = []

    def block() -> None:
        try:
            line.call(("INCR", "n"), ("BLMOVE", "q", "q", "RIGHT", "RIGHT", BOUND))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    until(lambda: watch.call(("GET", "n"))[0] == b"1")
    watch.call(("CLIENT", "KILL", "ID", line.id))
    thread.join(BOUND)
    assert [type(error) for error in caught] == [Unanswered]
    assert line.call(("GET", "n")) == [b"1"]
    line.close()
    watch.close()


def test_a_server_that_hangs_up_after_its_last_word_has_not_answered(redis_url):
    line = Connection(redis_url)
    line.open()
    line._reader.feed(b"-ERR Protocol error: invalid bulk length\r\n")  # of a value above its limit
    with pytest.raises(Unanswered, match="invalid bulk length"):
        line.call(("INCR", "n"))
    assert line.call(("PING",)) == [b"PONG"]
    line.close()


def test_exception_within_a_call_leaves_no_answer_behind(redis_url):
    line = Connection(redis_url)

    def interrupt(reply: object) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        line.call(("ECHO", "old"), ("ECHO", "older"), first=interrupt)
    assert line.call(("ECHO", "new")) == [b"new"]
    line.close()


def test_refused_port_is_unavailable_and_nothing_was_sent():
    line = Connection(f"redis://:secret@127.0.0.1:{free_port()}/0")
    with pytest.raises(Unavailable, match="is it running") as caught:
        line.call(("PING",))
    assert type(caught.value) is Unavailable
    assert "secret" not in str(caught.value)


def test_wrong_and_missing_passwords_are_refused_and_masked(own_redis):
    server = own_redis(password="right")
    assert Connection(server.url).call(("PING",)) == [b"PONG"]
    for user in (":wr0ng@", "nobody:wr0ng@", ""):
        with pytest.raises(ServerRefused) as caught:
            Connection(f"redis://{user}127.0.0.1:{server.port}/0").call(("PING",))
        assert "wr0ng" not in str(caught.value)


def test_forbidden_command_is_refused(own_redis):
    server = own_redis()
    admin = Connection(server.url)
    admin.call(("ACL", "SETUSER", "guest", "on", ">pw", "~*", "+@all", "-lpush", "-info"))
    guest = Connection(f"redis://guest:pw@127.0.0.1:{server.port}/0")
    assert guest.call(("GET", "k")) == [None]
    with pytest.raises(ServerRefused, match="ACL"):
        guest.call(("LPUSH", "q", "x"))
    guest.close()
    admin.close()


def test_missing_database_is_refused(redis_url):
    with pytest.raises(ServerRefused, match="DB index"):
        Connection(redis_url.rpartition("/")[0] + "/99999").call(("PING",))


@pytest.mark.parametrize(
    ("version", "good"),
    [("2.8.0", False), ("6.0.16", False), ("6.2.0", True), ("7.0.15", True), ("10.1", True)],
)
def test_only_servers_of_6_2_and_later_are_taken(version, good):
    info = f"# Server\r\nredis_version:{version}\r\nuptime_in_seconds:77\r\n".encode()
    if good:
        assert uptime_of(info) == 77.0
    else:
        with pytest.raises(ServerRefused, match=f"{version} is too old; update"):
            uptime_of(info)


def test_hidden_version_is_taken():
    assert uptime_of(hiredis.ReplyError("NOPERM no INFO for you")) == float("inf")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOAUTH Authentication required.", ServerRefused),
        ("NOPERM this user", ServerRefused),
        ("LOADING Redis is loading", Unavailable),
        ("OOM command not allowed", Unavailable),
        ("READONLY You can't write", Unavailable),
        ("ERR Error running script (call to f_0ab): @user_script:2: -MISCONF no disk", Unavailable),
        ("ERR Error running script (call to f_0ab): @user_script:2: bad argument", BrokerError),
    ],
)
def test_error_replies_become_our_errors(text, kind):
    assert type(failure(hiredis.ReplyError(text))) is kind
    assert failure(b"OK") is None


@pytest.mark.parametrize(
    "url",
    ["redsi://h", "h:6379", "", "unix+cluster://h", "redis+sentinel://h:1/", "redis://:s/cret@h:1",
     "redis://:s%2Fcret@h:1/abc", "rediss://h/1a", "redis+sentinel://h:1/service/abc"],
)  # fmt: skip
def test_wrong_url_is_an_error_at_once(url):
    with pytest.raises(ConfigurationError) as caught:
        Connections(url)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_of_tls_that_is_not_there_is_no_outage():
    with pytest.raises(ConfigurationError, match="ssl_certfile='/no/such': there is no such file"):
        Connections("rediss://h?ssl_certfile=/no/such")


def test_a_database_that_is_no_number_is_named():
    with pytest.raises(ConfigurationError, match="'redis://h:6379/abc': .* number of a database"):
        Connections("redis://h:6379/abc")
    for path in ("", "/", "/0", "/15", "?db=3"):
        Connections(f"redis://h:6379{path}")


def test_unix_socket(own_redis):
    line = Connection(own_redis(unix=True).url)
    assert line.call(("PING",)) == [b"PONG"]
    line.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_child_opens_its_own_connection(redis_url):
    lines = Connections(redis_url)
    mine = lines.to().open()
    lines.to()._lock.acquire()  # as if another thread had been inside a call
    child = os.fork()
    if not child:
        status = 1
        try:
            status = int(lines.to().call(("CLIENT", "ID")) == [mine])
        finally:
            os._exit(status)
    lines.to()._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert lines.to().call(("CLIENT", "ID")) == [mine]
    lines.close()


def test_tls_verifies_the_server(own_redis, tmp_path: Path):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    key, crt, port = tmp_path / "key", tmp_path / "crt", free_port()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key,
         "-out", crt, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    own_redis(
        config={
            "tls-port": str(port), "tls-cert-file": str(crt), "tls-key-file": str(key),
            "tls-auth-clients": "no",
        }
    )  # fmt: skip
    line = Connection(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={crt}", [ECHO])
    body = "x" * 100_000
    assert line.call(ECHO([], body)) == [body.encode()]
    line._used = 0.0  # as if idle: the look at it must not harm it
    first = line.id
    assert line.call(("CLIENT", "ID")) == [first]
    line.close()
    with pytest.raises(ServerRefused, match="not trusted"):
        Connection(f"rediss://127.0.0.1:{port}/0").call(("PING",))


def classes_of_the_client() -> list[type[BaseException]]:
    """Return every exception class that the installed client library defines."""
    found: set[type[BaseException]] = set()
    for module in pkgutil.walk_packages(redis.__path__, "redis."):
        with contextlib.suppress(ImportError):  # of something optional
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, BaseException):
                    found |= {value} if value.__module__.startswith("redis") else set()
    return sorted(found, key=lambda kind: (kind.__module__, kind.__name__))


def test_every_exception_of_the_client_is_told_as_one_of_ours():
    refusals = {
        "AuthenticationError", "AuthenticationWrongNumberOfArgsError", "AuthorizationError",
        "ClusterCrossSlotError", "ExecAbortError", "ExternalAuthProviderError", "ModuleError",
        "NoPermissionError", "NoScriptError", "NoSuchFieldsetError", "ResponseError",
    }  # fmt: skip
    refused = set()
    for kind in (kinds := classes_of_the_client()):
        error = kind.__new__(kind)
        error.args = ("told",)
        told = translated(error, "redis://h")
        assert isinstance(told, (Unavailable, ServerRefused)), kind
        refused |= {kind.__name__} if isinstance(told, ServerRefused) else set()
    assert len(kinds) > 30
    assert refused <= refusals
    for text in ("MISCONF no disk", "LOADING the data", "CLUSTERDOWN no slot"):
        assert isinstance(translated(redis.ResponseError(text), ""), Unavailable)
    assert isinstance(translated(redis.AuthenticationError("no"), ""), ServerRefused)
    assert translated(ZeroDivisionError(), "") is None


def test_cluster_that_is_away_or_not_ready_is_unavailable_until_it_is_back(own_redis):
    server = own_redis(config={"cluster-enabled": "yes"})
    broker = RedisAckBroker(f"redis+cluster://127.0.0.1:{server.port}")
    with pytest.raises(Unavailable):  # no slot is served yet
        broker.publish([outgoing(1)])
    admin = Connection(server.url)
    admin.call(("CLUSTER", "ADDSLOTSRANGE", 0, 16383))
    until(lambda: b"cluster_state:ok" in admin.call(("CLUSTER", "INFO"))[0])
    broker.publish([outgoing(1)])
    server.kill()
    for _ in range(2):
        with pytest.raises((Unavailable, PublishError)):
            broker.publish([outgoing(2)])
    with pytest.raises(Unavailable):
        broker.publish([outgoing(2)])
    server.start()
    found: list[object] = []

    def is_back() -> bool:
        try:
            broker.publish([outgoing(3)])
        except Unavailable as error:
            found.append(error)
            return False
        return True

    until(is_back)
    assert broker.size("conformance").waiting == 1
    for each in (broker, admin):
        each.close()


def test_cluster_that_wants_another_password_says_so(own_redis):
    server = own_redis(password="right", config={"cluster-enabled": "yes"})
    for secret in ("", ":wrong@"):
        with pytest.raises(ServerRefused):
            RedisAckBroker(f"redis+cluster://{secret}127.0.0.1:{server.port}").size("q")


def test_cluster_url_finds_the_node_of_the_key(own_redis):
    server = own_redis(config={"cluster-enabled": "yes"})
    admin = Connection(server.url)
    admin.call(("CLUSTER", "ADDSLOTSRANGE", 0, 16383))
    until(lambda: b"cluster_state:ok" in admin.call(("CLUSTER", "INFO"))[0])
    line = Connection(f"redis+cluster://127.0.0.1:{server.port}", key="q")
    assert line.call(("LPUSH", "q", "x"), ("LPUSH", "{q}:again", "y")) == [1, 1]
    line.close()
    admin.close()


def test_sentinel_url_finds_the_master(own_redis, tmp_path: Path):
    master, port = own_redis(), free_port()
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor mine 127.0.0.1 {master.port} 1\n"
    )
    process = subprocess.Popen(["redis-server", conf, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        line = Connection(f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mine/0")

        def answers() -> bool:
            try:
                return line.call(("PING",)) == [b"PONG"]
            except Unavailable:
                return False

        until(answers)
        assert Connection(master.url).call(("CLIENT", "LIST", "ID", line.id))[0]
        line.close()
        with pytest.raises(Unavailable):
            Connection(f"redis+sentinel://127.0.0.1:{port}/other/0").call(("PING",))
    finally:
        process.kill()
        process.wait()
