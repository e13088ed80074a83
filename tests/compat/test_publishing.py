"""What leaves: flat messages, whoever looks at them on the way, and where they go."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import re
import socket
import threading
import uuid

import pytest
from kombu import Connection, Exchange, Queue
from kombu.common import Broadcast
from kombu.exceptions import EncodeError, OperationalError

from fsdf_compat import Celery, signals
from fsdf_compat._app.unused import without_effect
from fsdf_compat._engine import steps
from fsdf_compat._ids import new_id
from fsdf_compat.exceptions import AlwaysEagerIgnored, ImproperlyConfigured, QueueNotFound

UTC = datetime.timezone.utc


@pytest.fixture
def app():
    with Celery("proj", broker="memory://", set_as_current=False, fixups=[]) as made:
        yield made


@pytest.fixture
def add(app):
    @app.task(name="add")
    def add(x, y=2, *more, z=0):
        return x + y

    return add


def fetched(app, queue="celery", *, url="memory"):
    """Return the messages of a queue, as (arguments, extra)."""
    found = []
    for delivery in app.engine.broker(url).subscribe(f"{queue}.flat", lease=9).fetch(99, 1 << 20):
        data = json.loads(delivery.body)
        found.append((data, data.pop("extra")))
    return found


def only(app, queue="celery"):
    [(data, extra)] = fetched(app, queue)
    for key in ("publish_time", "task_id", "origin"):
        assert extra.pop(key)
    return data, extra


@pytest.fixture
def receiver():
    connected = []

    def connect(signal, function):
        signal.connect(function, weak=False)
        connected.append((signal, function))

    yield connect
    for signal, function in connected:
        signal.disconnect(function)


@pytest.mark.parametrize(
    ("args", "kwargs", "data", "extra"),
    [
        ((1,), {}, {"x": 1}, {"positional": 1}),
        ((1, 2), {}, {"x": 1, "y": 2}, {"positional": 2}),
        ((1,), {"y": 2}, {"x": 1, "y": 2}, {"positional": 1}),
        ((), {"y": 2, "x": 1}, {"y": 2, "x": 1}, {}),
        ((1, 2, 3), {}, {}, {"args": [1, 2, 3]}),
        ((1, 2, 3), {"z": 4}, {"z": 4}, {"args": [1, 2, 3]}),
    ],
)
def test_arguments_have_names_and_the_call_is_known_as_it_was_written(
    app, add, args, kwargs, data, extra
):
    add.apply_async(args, kwargs)
    assert only(app) == (data, {"task": "add", **extra})


def test_a_task_that_is_not_here_gets_unnamed_arguments(app):
    app.send_task("elsewhere", (1, "a"), {"k": None})
    assert only(app) == ({"k": None}, {"task": "elsewhere", "args": [1, "a"]})


def test_a_parameter_called_extra_and_positional_only_ones_travel(app):
    @app.task(name="odd")
    def odd(first, /, extra, other=0):
        pass

    odd.delay(1, extra=2)
    assert only(app) == ({}, {"task": "odd", "args": [1], "param": 2})
    odd.delay(1, 2, 3)
    assert only(app) == ({}, {"task": "odd", "args": [1, 2, 3]})


def test_a_bound_task_that_lacks_self_is_an_error_of_its_call(app):
    @app.task(bind=True, name="noself")
    def noself():
        pass

    with pytest.raises(TypeError, match="0 positional arguments"):
        noself.delay()
    app.send_task("noself")
    assert only(app) == ({}, {"task": "noself"})


def test_only_what_differs_from_the_defaults_is_said(app, add):
    add.apply_async(
        (1,), task_id="id", root_id="root", parent_id="parent", shadow="shown",
        headers={"mine": 1, "headers": {"nested": 2}}, time_limit=9, soft_time_limit=4,
        ignore_result=True, own_property="p",
    )  # fmt: skip
    [(_, extra)] = fetched(app)
    assert extra["task_id"] == "id"
    assert extra["limits"] == [4, 9]
    assert extra["headers"] == {
        "root_id": "root", "parent_id": "parent", "shadow": "shown", "mine": 1,
        "headers": {"nested": 2}, "ignore_result": True, "properties": {"own_property": "p"},
    }  # fmt: skip


def test_links_travel_as_headers(app, add):
    add.apply_async((1,), link=add.s(2), link_error=[add.s(3), add.s(4)], chain=[add.s(5)])
    headers = only(app)[1]["headers"]
    assert [link["args"] for link in headers["callbacks"]] == [[2]]
    assert [link["args"] for link in headers["errbacks"]] == [[3], [4]]
    assert [link["args"] for link in steps.opened(headers["chain"])] == [[5]]


def test_values_are_typed_as_kombu_types_them(app, add):
    day, number, id = datetime.date(2026, 1, 31), decimal.Decimal("1.50"), uuid.UUID(int=5)
    add.apply_async((day, number), {"z": [id, b"\xff", float("inf"), 1 << 80]})
    data, _ = only(app)
    assert data["x"] == {"__type__": "date", "__value__": "2026-01-31"}
    assert data["y"] == {"__type__": "decimal", "__value__": "1.50"}
    assert data["z"][0] == {"__type__": "uuid", "__value__": {"hex": id.hex}}
    assert data["z"][1:] == [{"__type__": "base64", "__value__": "/w=="}, float("inf"), 1 << 80]
    add.delay("\ud800", 1 << 70)
    assert only(app)[0] == {"x": "\ud800", "y": 1 << 70}


@pytest.mark.parametrize("value", [object(), {1, 2}.__iter__(), Ellipsis])
def test_what_kombu_refuses_is_refused_and_nothing_leaves(app, add, value):
    with pytest.raises(EncodeError):
        add.delay(value)
    with pytest.raises(EncodeError):
        add.apply_async((1,), headers={"own": value})
    assert fetched(app) == []


def test_another_serializer_is_carried_as_content(app, add):
    add.apply_async((1,), {"y": 2}, serializer="pickle")
    data, extra = only(app)
    assert data == {}
    assert extra["content"][:2] == ["application/x-python-serialize", "binary"]


def test_arguments_that_do_not_fit_fail_where_they_are_sent(app, add):
    with pytest.raises(TypeError, match="'x'"):
        add.delay()
    with pytest.raises(TypeError, match="list or tuple"):
        app.send_task("add", "abc")
    with pytest.raises(TypeError, match="mapping"):
        app.send_task("add", kwargs=[1])
    with pytest.raises(ValueError, match="soft_time_limit"):
        app.task(name="never", soft_time_limit=2, time_limit=1)(lambda: 0).delay()
    loose = app.task(name="loose", typing=False)(lambda x: x)
    loose.delay(1, 2)
    assert only(app)[1]["args"] == [1, 2]
    loose.delay(1, x=2)
    assert only(app) == ({"x": 2}, {"task": "loose", "args": [1]})


def test_times_are_seconds_from_now_or_instants(app, add):
    soon = datetime.datetime.now(UTC) + datetime.timedelta(hours=1)
    broker = app.engine.broker("memory")
    for options in ({"countdown": 60}, {"eta": soon}, {"eta": soon.isoformat()}):
        add.apply_async((1,), **options)
    assert broker.size("celery.flat").delayed == 3
    assert broker.size("celery.flat").waiting == 0
    add.apply_async((1,), eta=datetime.datetime(2020, 1, 1), expires=soon)
    extra = only(app)[1]
    assert extra["headers"] == {"eta": "2020-01-01T00:00:00"}
    assert extra["expires"] == pytest.approx(soon.timestamp())
    add.apply_async((1,), expires=30)
    now = datetime.datetime.now(UTC).timestamp()
    assert 25 < only(app)[1]["expires"] - now < 31
    with pytest.raises(ValueError, match="countdown is out of range"):
        add.apply_async((1,), countdown=-(1 << 40))


@pytest.mark.parametrize("is_watched", [False, True])
@pytest.mark.parametrize(
    ("option", "given"),
    [
        *(("eta", given) for given in (math.inf, math.nan, 1e308, -1, "tomorrow", "x", [1])),
        *(("expires", given) for given in (math.inf, math.nan, 1e308, "tomorrow", "x", "", [1])),
        *(("countdown", given) for given in (math.inf, math.nan, 1e308, "5", [1])),
    ],
)
def test_a_time_that_is_none_is_refused_by_its_name_and_value(
    app, add, receiver, option, given, is_watched
):
    if is_watched:
        receiver(signals.before_task_publish, lambda **told: None)
    with pytest.raises(ValueError, match=re.escape(f"{option}={given!r}: give ")):
        add.apply_async((1,), **{option: given})
    assert fetched(app) == []


@pytest.mark.parametrize("limit", ["time_limit", "soft_time_limit"])
@pytest.mark.parametrize("given", ["x", "5", "", math.nan, math.inf, -1, 1e308, True, [1]])
def test_a_limit_that_is_none_is_refused_by_its_name_and_value(app, add, limit, given):
    limited = app.task(name="limited", **{limit: given})(add.run)
    told = re.escape(f"{limit}={given!r}: give seconds from 0 to ")
    for call in (
        lambda: add.apply_async((1,), **{limit: given}),
        lambda: add.s(1).set(**{limit: given}).delay(),
        lambda: app.send_task("elsewhere", **{limit: given}),
        lambda: limited.delay(1),
    ):
        with pytest.raises(ValueError, match=told):
            call()
    assert fetched(app) == []


def test_a_soft_limit_above_the_hard_one_of_its_call_is_refused(app, add):
    with pytest.raises(ValueError, match="soft_time_limit=9: give no more than time_limit=5"):
        add.apply_async((1,), soft_time_limit=9, time_limit=5)
    for limits in ((None, 5), (0, 5), (9, 0), (5, 5), (None, None)):
        add.apply_async((1,), soft_time_limit=limits[0], time_limit=limits[1])
    assert [extra.get("limits") for _, extra in fetched(app)] == [
        [None, 5], [0, 5], [9, 0], [5, 5], None,
    ]  # fmt: skip


@pytest.mark.parametrize("moment", [datetime.datetime.min, datetime.datetime.max])
def test_the_first_and_the_last_moment_are_bounds_that_a_worker_can_read(app, add, moment):
    add.apply_async((1,), expires=moment)
    last = only(app)[1]["expires"]
    assert last > 0 and datetime.datetime.fromtimestamp(last, UTC)
    with app.amqp.collecting() as outgoings:
        add.apply_async((1,), eta=moment)
    assert outgoings[0].not_before == last


def test_a_retry_and_a_call_of_one_id_are_two_messages(app, add):
    with app.amqp.collecting() as outgoings:
        add.apply_async((1,), task_id="same")
        add.apply_async((1,), task_id="same", retries=2, countdown=5)
    assert [each.id for each in outgoings] == ["same", "same:2"]
    extra = json.loads(outgoings[1].body)["extra"]
    assert (extra["task_id"], extra["attempt"], outgoings[1].delay) == ("same", 2, 5.0)
    assert "headers" not in extra
    assert fetched(app) == []


def test_what_is_collected_is_not_sent_and_only_here(app, add):
    with app.amqp.collecting() as outer:
        add.delay(1)
        with app.amqp.collecting() as inner:
            add.delay(2)
    add.delay(3)
    assert [len(outer), len(inner), len(fetched(app))] == [1, 1, 1]


def test_messages_may_leave_in_few_round_trips_and_all_have_left_at_the_end(app, add, receiver):
    with app.amqp.together():
        for number in range(1200):
            add.delay(number)
    told = []
    while more := fetched(app):
        told += [data["x"] for data, _ in more]
    assert told == [*range(1200)]
    with app.amqp.collecting() as outgoings, app.amqp.together():
        add.delay(1)
    assert len(outgoings) == 1
    receiver(signals.after_task_publish, lambda **kwargs: told.append(len(fetched(app))))
    with app.amqp.together():
        add.delay(1)
        assert told.pop() == 1


def test_messages_go_where_the_caller_the_routes_or_the_default_say(app, add):
    app.conf.task_routes = {"add": "routed", "glob.*": {"queue": "globbed", "priority": 7}}
    app.amqp.flush_routes()
    add.delay(1)
    add.apply_async((1,), queue="asked")
    app.send_task("glob.x")
    app.send_task("other")
    add.apply_async((1,), queue=Queue("object"))
    sizes = [len(fetched(app, q)) for q in ("routed", "asked", "globbed", "celery", "object")]
    assert sizes == [1, 1, 1, 1, 1]


def test_an_exchange_means_the_queues_that_are_bound_to_it(app, add):
    topic, direct, fan = (Exchange(kind, kind) for kind in ("topic", "direct", "fanout"))
    app.conf.task_queues = [
        Queue("celery"), Queue("logs", topic, "log.#"), Queue("errors", topic, "log.error"),
        Queue("keyed", direct, "key"), Queue("one", fan), Queue("two", fan),
    ]  # fmt: skip
    add.apply_async((1,), exchange="topic", routing_key="log.error", exchange_type="topic")
    assert [len(fetched(app, q)) for q in ("logs", "errors", "keyed")] == [1, 1, 0]
    add.apply_async((1,), exchange="direct", routing_key="key", exchange_type="topic")
    add.apply_async((1,), exchange="fanout", routing_key="", exchange_type="fanout")
    assert [len(fetched(app, q)) for q in ("keyed", "one", "two")] == [1, 1, 1]
    add.apply_async((1,), exchange="unknown", routing_key="kept", exchange_type="topic")
    assert len(fetched(app, "kept")) == 1
    with pytest.raises(ImproperlyConfigured, match="Broadcast"):
        add.apply_async((1,), queue=Broadcast("all"))


def test_unknown_queues_are_refused_where_none_may_be_added(app, add):
    app.conf.update(task_create_missing_queues=False)
    with pytest.raises(QueueNotFound, match="nowhere"):
        add.apply_async((1,), queue="nowhere")


def test_receivers_see_a_message_of_celerys_form_and_change_it(app, add, receiver):
    seen = []

    def before(sender, body, headers, properties, routing_key, **kwargs):
        seen.append((sender, routing_key, sorted(body[2]), body[:2], properties["priority"]))
        headers["traceparent"] = "00-1"
        headers["timelimit"][0] = 5
        body[1]["y"] = 9

    receiver(signals.before_task_publish, before)
    receiver(signals.after_task_publish, lambda headers, **kw: seen.append(headers["argsrepr"]))
    add.apply_async((1,), {"y": 2}, priority=3, headers={"mine": 1})
    data, extra = only(app)
    assert data == {"x": 1, "y": 9}
    assert extra == {
        "task": "add", "positional": 1, "limits": [None, 5],
        "headers": {"traceparent": "00-1", "mine": 1},
    }  # fmt: skip
    links = ["callbacks", "chain", "chord", "errbacks"]
    assert seen == [("add", "celery", links, ((1,), {"y": 9}), 3), "(1,)"]


def test_a_message_that_is_looked_at_is_the_one_that_would_have_left(app, add, receiver):
    options = {
        "link": add.s(1), "countdown": 9, "expires": 60, "headers": {"a": 1}, "shadow": "s",
        "root_id": "r", "argsrepr": "()", "group_id": "g", "group_index": 2, "task_id": "id",
        "soft_time_limit": 3, "own": "p", "reply_to": "me", "origin": "o", "retries": 1,
    }  # fmt: skip
    with app.amqp.collecting() as outgoings:
        add.apply_async((1,), {"y": 2}, **options)
        receiver(signals.before_task_publish, lambda **kwargs: None)
        add.apply_async((1,), {"y": 2}, **options)
    plain, watched = (json.loads(each.body) for each in outgoings)
    for body in (plain, watched):
        assert body["extra"].pop("publish_time")
        assert body["extra"].pop("expires")
    assert watched["extra"]["headers"].pop("eta")  # a retry that nobody looks at says delay only
    assert plain["extra"].pop("headers") == watched["extra"].pop("headers")
    assert plain == watched
    assert outgoings[0].priority == outgoings[1].priority


def test_a_producer_or_a_connection_says_which_broker(app, add, tmp_path):
    url = f"sqlite:///{tmp_path}/other.sqlite"
    with Connection("memory://") as same:
        add.apply_async((1,), producer=app.amqp.Producer(same))
        add.apply_async((1,), connection=same)
    assert len(fetched(app)) == 2
    with Celery("x", broker=url, set_as_current=False, fixups=[]) as other:
        add.apply_async((1,), producer=_Elsewhere(url))
        assert other.engine.broker("sqlite", url).size("celery.flat").waiting == 0
    assert _Elsewhere.published == ["celery"]


class _Elsewhere:
    """A producer that is not kombu's own: it publishes itself."""

    published: list[str] = []

    def __init__(self, url):
        self.connection = Connection(url.replace("sqlite", "memory", 1))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def publish(self, body, routing_key, **kwargs):
        self.published.append(routing_key)


def test_a_dead_broker_is_an_operational_error(tmp_path):
    with Celery("x", broker="redis://127.0.0.1:1/0", set_as_current=False, fixups=[]) as app:
        task = app.task(name="t")(lambda: 0)
        with pytest.raises(OperationalError):
            task.apply_async(retry=False)
        with pytest.raises(OperationalError):
            task.apply_async(retry_policy={"max_retries": 1, "interval_step": 0})
        with pytest.raises(task.OperationalError):
            task.delay()


def test_a_broker_that_says_nothing_is_asked_once_within_the_time_of_a_connection():
    asked = []

    def listen(server):
        while True:
            try:
                asked.append(server.accept()[0])
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen, args=(server,))
        thread.start()
        url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        more = {
            "broker_transport_options": {"socket_timeout": 0.3},
            "broker_connection_timeout": 0.2,
        }
        with Celery("x", broker=url, set_as_current=False, fixups=[], **more) as app:
            with pytest.raises(OperationalError):
                app.task(name="t")(lambda: 0).delay()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(asked) == 1
    asked[0].close()


def test_ids_are_random_uuids():
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert all(str(uuid.UUID(id)) == id and uuid.UUID(id).version == 4 for id in ids)


def test_always_eager_says_that_it_does_not_hold_for_names(app, add):
    app.conf.task_always_eager = True
    with pytest.warns(AlwaysEagerIgnored):
        app.send_task("add", (1,))
    assert add.delay(1, y=5).get() == 6
    with pytest.raises(EncodeError):
        add.delay(object())
    assert len(fetched(app)) == 1


def test_messages_leave_where_events_are_wanted_that_are_not_there(app, add, receiver):
    app.conf.task_send_sent_event = True
    receiver(signals.before_task_publish, lambda **kwargs: None)
    add.delay(1)
    app.send_task("other", (1,))
    assert len(fetched(app)) == 2
    assert "task_send_sent_event" in without_effect(app.conf)
