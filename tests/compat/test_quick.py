"""The short way of calls that say nothing but their arguments: it sends what the long way sends."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import math
import uuid
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue, serialization

from fsdf_compat import Celery, signals
from fsdf_compat._app import flat, quick


@pytest.fixture
def app():
    with Celery("proj", broker="memory://", set_as_current=False, fixups=[]) as made:
        yield made


def sent(app, call):
    """Return where the messages of a call go, and what they are but for their ids and times."""
    with app.amqp.collecting() as outgoings:
        result = call()
    found = []
    for each in outgoings:
        data = json.loads(each.body)
        extra = data["extra"]
        assert extra.pop("task_id") == each.id.partition(":")[0] == result.id
        assert extra.pop("publish_time")
        found.append((each.queue, each.priority, each.delay, each.not_before, data))
    return found, result.ignored


@pytest.fixture
def is_quick(monkeypatch):
    """Tell whether the last call went the short way."""
    told, real = [], quick.sent

    def asked(*given):
        told.append(real(*given))
        return told[-1]

    monkeypatch.setattr(quick, "sent", asked)
    return lambda: told.pop() is not None


def both(app, task, *args, **kwargs):
    """Return what both ways send, which is the same."""
    short = sent(app, lambda: task.delay(*args, **kwargs))
    assert short == sent(app, lambda: task.apply_async(args, kwargs, add_to_parent=True))
    return short


@pytest.mark.parametrize(
    "options",
    [
        {}, {"ignore_result": True}, {"time_limit": 9}, {"time_limit": 9, "soft_time_limit": 4.5},
        {"queue": "own"},
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_ways_send_the_same(app, options, is_quick):
    @app.task(name="add", **options)
    def add(x, y=2, /, z=3, *more, extra=None, **others):
        return x

    calls = [
        ((1,), {}), ((1, 2, "z"), {"w": [1.5, {"k": None}]}), ((1, 2, 3, 4), {}),
        ((1, b"b"), {"extra": {"task": "x"}}), ((1,), {"z": "\ud800"}),
    ]  # fmt: skip
    for args, kwargs in calls:
        both(app, add, *args, **kwargs)
        assert is_quick()


def test_both_ways_go_where_the_routes_say(app, is_quick):
    app.conf.update(task_routes={"a.*": "of_a", "b": {"queue": "of_b"}}, task_default_queue="rest")
    for name, queue in {"a.one": "of_a.flat", "b": "of_b.flat", "c": "rest.flat"}.items():
        [(where, *_)], _ = both(app, app.task(name=name)(lambda: None))
        assert where == queue
        assert is_quick()


def test_a_call_in_a_run_says_from_which(app, is_quick):
    @app.task(name="outer", bind=True)
    def outer(self):
        pass

    inner = app.task(name="inner")(lambda: None)
    outer.push_request(id="run", root_id="root", called_directly=False, children=[])
    from fsdf_compat._state import _task_stack

    _task_stack.push(outer._get_current_object())
    try:
        found, _ = both(app, inner)
        assert is_quick()
        assert found[0][-1]["extra"]["headers"] == {"parent_id": "run", "root_id": "root"}
        assert len(outer.request.children) == 2
        app.conf.task_inherit_parent_priority = True
        outer.request.delivery_info = {"priority": 6}
        [(_, priority, *_)], _ = both(app, inner)
        assert (priority, is_quick()) == (6, False)
    finally:
        _task_stack.pop()
        outer.pop_request()


class Settings:
    task_always_eager = False
    task_default_queue = "celery"


def change_settings(app, task):
    app.conf.task_default_queue = "other"


def change_queues(app, task):
    app.amqp.queues.add(Queue("celery", Exchange("topics", type="topic"), routing_key="#"))
    app.amqp.queues.add(Queue("other", Exchange("topics", type="topic"), routing_key="#"))


def change_routes(app, task):
    app.conf.update(task_routes=[lambda name, *rest, **more: {"queue": "other"}])


def change_what_routes(app, task):
    app.amqp.router.routes = [lambda name, *rest, **more: {"queue": "other"}]


def change_the_router(app, task):
    app.amqp.router = SimpleNamespace(route=lambda *given: {"queue": Queue("other")})


def change_who_sends(app, task):
    send = app.send_task
    app.send_task = lambda name, *given, **more: send(name, *given, **{**more, "queue": "other"})


def change_messages(app, task):
    make = app.amqp.as_task_v2

    def made(id, name, *given, **more):
        message = make(id, name, *given, **more)
        message.headers["shadow"] = "seen"
        return message

    app.amqp.as_task_v2 = app.amqp.task_protocols[2] = made
    app.amqp.create_task_message = made


def change_the_name_shown(app, task):
    task.shadow_name = lambda *given: "seen"


@pytest.mark.parametrize(
    "change",
    [
        change_settings, change_queues, change_routes, change_what_routes, change_the_router,
        change_who_sends, change_messages, change_the_name_shown,
    ],
)  # fmt: skip
def test_what_is_changed_after_a_call_counts_for_the_next_one(app, is_quick, change):
    task = app.task(name="task")(lambda: None)
    before, _ = both(app, task)
    assert is_quick()
    change(app, task)
    after, _ = both(app, task)
    assert both(app, task)[0] == after
    where = [queue for queue, *_ in after]
    headers = after[0][-1]["extra"].get("headers", {})
    assert before != after
    assert "other.flat" in where or headers["shadow"] == "seen"


def test_settings_of_an_object_may_become_eager(app, is_quick):
    app.config_from_object(Settings)
    ran = []
    task = app.task(name="task")(lambda: ran.append(1))
    both(app, task)
    assert is_quick()
    Settings.task_always_eager = True
    try:
        task.delay()
    finally:
        Settings.task_always_eager = False
    assert ran == [1]
    both(app, task)
    assert is_quick()


def test_a_receiver_sees_the_next_message(app, is_quick):
    task = app.task(name="task")(lambda x: None)
    both(app, task, 1)
    assert is_quick()
    seen = []

    def look(sender, headers, body, **said):
        headers["mine"] = len(body[0])
        seen.append(sender)

    signals.before_task_publish.connect(look)
    try:
        [(*_, data)], _ = both(app, task, 1)
        assert data["extra"]["headers"] == {"mine": 1}
        assert (seen, is_quick()) == (["task"] * 2, False)
    finally:
        signals.before_task_publish.disconnect(look)


class Kind(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


ODD = st.sampled_from([
    b"bytes", (1, "\x7f"), {1}, Kind.ONE, Text("x"), uuid.UUID(int=5), decimal.Decimal("1.5"),
    datetime.date(2026, 1, 31), collections.OrderedDict(a=1), {1: 2},
])  # fmt: skip
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
    | st.sampled_from(["\x7f", "\xff\x7f", -1, -129, math.inf, math.nan, 1 << 63, 1 << 70])
)  # fmt: skip
VALUES = st.recursive(
    PLAIN | ODD, lambda some: st.lists(some) | st.dictionaries(st.text(), some), max_leaves=20
)


@given(VALUES)
def test_a_value_is_written_as_kombu_writes_it(value):
    def by_kombu():
        text = serialization.dumps({"x": value, "extra": {"task_id": "id"}}, "json")[2]
        return repr(json.loads(text))

    try:
        expected = by_kombu()
    except Exception as error:
        with pytest.raises(type(error)):
            flat.encoded({"x": value}, {"task_id": "id"})
    else:
        assert repr(json.loads(flat.encoded({"x": value}, {"task_id": "id"}))) == expected
