"""Chains, groups and chords, over every way in which a backend keeps their results."""

from __future__ import annotations

import threading

import pytest
from helpers import BOUND

from fsdf_compat import Celery, chain, chord, group, signals, signature
from fsdf_compat.app.task import Task
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import ChordError
from fsdf_compat.result import GroupResult

BACKENDS = ["redis", "cache+memory", "db+sqlite"]


class Work:
    """An app, a worker for it in this process, and what its tasks have noted."""

    def __init__(self, backend):
        self.noted = []
        self.grew = threading.Condition()
        self.app = app = Celery("canvas", broker="memory://", backend=backend)
        app.conf.result_chord_retry_interval = 0.05

        @app.task(shared=False)
        def add(x, y):
            return x + y

        @app.task(shared=False)
        def same(x):
            return x

        @app.task(shared=False)
        def total(values):
            return sum(values)

        @app.task(shared=False)
        def fail(text="no"):
            raise ValueError(text)

        @app.task(shared=False)
        def note(*said):
            self.note(said)

        @app.task(shared=False)
        def note_id(task_id):
            self.note((task_id,))

        @app.task(shared=False)
        def note_failure(request, exc, traceback):
            self.note((request.id, repr(exc)))

        @app.task(bind=True, shared=False)
        def spread(self, n):
            return [r.id for r in group(add.s(i, i) for i in range(n)).apply_async()]

        @app.task(bind=True, shared=False)
        def lineage(self, *before):
            return [*before, (self.request.root_id, self.request.parent_id)][-2:]

        @app.task(bind=True, shared=False)
        def instead(self, n):
            raise self.replace(group(same.s(i) for i in range(n)) | total.s())

        self.add, self.same, self.total, self.fail = add, same, total, fail
        self.put, self.note_id, self.note_failure = note, note_id, note_failure
        self.spread, self.instead, self.lineage = spread, instead, lineage

    def note(self, said):
        with self.grew:
            self.noted.append(said)
            self.grew.notify_all()

    def has_noted(self, count):
        with self.grew:
            assert self.grew.wait_for(lambda: len(self.noted) >= count, BOUND)
            return list(self.noted)


@pytest.fixture(scope="module", params=BACKENDS)
def work(request, tmp_path_factory):
    url = {
        "redis": lambda: request.getfixturevalue("redis_server"),
        "cache+memory": lambda: "cache+memory://",
        "db+sqlite": lambda: f"db+sqlite:///{tmp_path_factory.mktemp('results')}/results.db",
    }[request.param]()
    made = Work(url)
    assert made.app.backend.native is (request.param == "redis")
    with start_worker(made.app, concurrency=4, pool="threads", perform_ping_check=False):
        yield made
    made.app.close()


@pytest.fixture(autouse=True)
def nothing_noted(work, quick_looks):
    work.noted.clear()


def test_each_step_of_a_chain_gets_the_result_of_the_one_before(work):
    result = chain(work.add.s(1, 2), work.add.s(10), work.same.si(5), work.add.s(4))()
    values = []
    while result:
        values.append(result.get(BOUND))
        result = result.parent
    assert values == [9, 5, 13, 3]


def test_what_follows_a_failed_step_has_failed_and_does_not_run(work):
    result = chain(work.add.s(1, 2), work.fail.si("stop"), work.put.s())()
    with pytest.raises(ValueError, match="stop"):
        result.get(BOUND)  # raises as soon as the step before has failed
    assert isinstance(result.get(BOUND, propagate=False), ValueError)
    assert result.state == "FAILURE"
    assert work.add.delay(1, 1).get(BOUND) == 2
    assert work.noted == []


def test_what_is_left_of_a_chain_is_a_list_for_who_asks(work):
    """It may be changed by a run, and code of the user's sees it on its way out."""

    class Noting(work.app.Task):
        def apply_async(self, args=None, kwargs=None, **options):
            work.note([step["args"] for step in options["chain"]])
            return super().apply_async(args, kwargs, **options)

    @work.app.task(base=Noting, shared=False)
    def noting(x):
        return x

    @work.app.task(bind=True, shared=False)
    def skip(self, x):
        work.note([step["args"] for step in self.request.chain])
        self.request.chain.pop()
        return x

    seen = []

    def see(body, **_):
        seen.append([list(step["args"]) for step in body[2]["chain"] or ()])

    steps = work.same.si(1), skip.s(), work.add.s(100), noting.s(), work.add.s(4)
    assert chain(*steps)().get(BOUND) == 5
    assert work.has_noted(2) == [[[4], [], [100]], [[4]]]
    signals.before_task_publish.connect(see)
    try:
        assert chain(*steps)().get(BOUND) == 5
    finally:
        signals.before_task_publish.disconnect(see)
    assert seen == [[[4], [], [100], []], [[4], [], [100]], [[4]], []]


def test_who_wraps_the_sending_of_all_tasks_sees_lists(work, monkeypatch):
    kinds, send = [], Task.apply_async

    def wrapped(self, args=None, kwargs=None, **options):
        kinds.append(type(options.get("chain")))
        return send(self, args, kwargs, **options)

    monkeypatch.setattr(Task, "apply_async", wrapped)
    assert chain(work.same.si(1), *[work.add.s(1)] * 3)().get(BOUND) == 4
    assert kinds == [list] * 4


def test_the_last_step_may_add_another_one(work):
    @work.app.task(bind=True, shared=False)
    def more(self, x):
        self.request.chain.append(work.put.s())
        return x

    chain(work.same.si(1), more.s())()
    assert work.has_noted(1) == [(1,)]


def test_what_follows_a_step_that_cannot_be_read_has_failed(work):
    """As where its type is known to its publisher only."""
    unknown = {"__type__": "money", "__value__": "x"}
    last = chain(work.same.si(1), work.same.s(), work.put.si(unknown), work.add.s(1))()
    steps = [last, last.parent, last.parent.parent]
    for result in steps:
        assert isinstance(result.get(BOUND, propagate=False), Exception)
    assert [result.state for result in steps] == ["FAILURE"] * 3
    last = chain(work.fail.si("boom"), work.put.si(unknown), work.add.s(1))()
    for result in (last, last.parent.parent):
        assert str(result.get(BOUND, propagate=False)) == "boom"


def test_all_that_follows_a_failed_step_has_failed_however_it_is_nested(work):
    """Whoever waits for a part of it would wait for ever."""
    add, fail, total = work.add, work.fail, work.total
    steps = [fail.si("stop"), group(add.s(1), chain(add.s(2), add.s(3))), total.s(), add.s(4)]
    last = chain(*steps)()
    header = last.parent.parent
    assert header.parent.id
    ended = [last, last.parent, *chain(*steps[:2])().results]
    if work.app.backend.native:
        ended += [*header.results, *(each.parent for each in header.results if each.parent)]
    for result in ended:
        assert isinstance(result.get(BOUND, propagate=False), ValueError)


def test_a_chord_learns_that_one_in_it_has_failed(work):
    add, total = work.add, work.total
    inner = chord([add.s(1, 1), work.fail.si("stop")], total.s())
    broken = chain(group(add.s(1, 1), work.fail.si("stop")), total.s(), add.s(1))
    for part in (inner, broken, chord([add.s(1, 1), work.fail.si("stop")], group(total.s()))):
        result = chord([add.s(2, 2), part], work.same.s())()
        assert isinstance(result.get(BOUND, propagate=False), ChordError)


def test_values_of_a_group_are_in_the_order_of_its_tasks(work):
    result = group(work.add.s(i, 1) for i in range(20))()
    assert result.get(timeout=BOUND) == list(range(1, 21))
    assert result.completed_count() == 20
    assert [child.get(BOUND) for child in result.children] == list(range(1, 21))


@pytest.mark.parametrize("lazy", [False, True], ids=["list", "generator"])
def test_the_body_of_a_chord_gets_the_values_of_its_header(work, lazy):
    header = (work.add.s(i, i) for i in range(10))
    result = chord(header if lazy else list(header))(work.same.s())
    assert result.get(BOUND) == [2 * i for i in range(10)]
    assert result.parent.get(timeout=BOUND) == [2 * i for i in range(10)]


def test_canvases_in_each_other_give_what_they_say(work):
    add, same, total = work.add, work.same, work.total
    wanted = [
        (group(add.s(i, i) for i in range(3)) | total.s() | add.s(1), 7),
        (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s(), 7),
        (chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(4, 4)], total.s()), 14),
        (chord([add.s(1, 1), add.s(2, 2)], group(total.s(), same.s())), [6, [2, 4]]),
        (chord([chain(same.s(1), group(add.s(1), add.s(2))), same.s(9)], same.s()), [[2, 3], 9]),
        (chord([], total.s()), 0),
        (group(group(same.s(1), same.s(2)), chain(same.s(1), add.s(2))), [1, 2, 3]),
        (work.instead.s(4) | add.s(100), 106),
        (chord([work.instead.s(3), same.s(1)], total.s()), 4),
    ]
    results = [
        canvas() if isinstance(canvas, chord) else canvas.apply_async() for canvas, _ in wanted
    ]
    got = [result.get(timeout=BOUND) for result in results]
    assert [sorted(v) if w == [1, 2, 3] else v for v, (_, w) in zip(got, wanted)] == [
        w for _, w in wanted
    ]


def test_the_body_of_a_chord_has_a_task_of_its_header_for_its_parent(work):
    header = [work.same.si(n) for n in range(3)]
    result = (work.same.si(0) | chord(header, work.lineage.si() | work.lineage.s()))()
    (first_root, parent), last = result.get(BOUND)[0][0], result.get(BOUND)[1]
    header = result.parent.parent
    assert [first_root, last[0]] == [header.parent.id] * 2
    looked_for = not hasattr(work.app.backend, "get_key_for_chord")  # by a task of its own
    assert looked_for or parent in [member.id for member in header.results]
    assert last[1] == result.parent.id


def test_a_task_that_sends_a_frozen_chord_again_sends_a_new_one_and_a_repeat_of_it_does_not(work):
    if not work.app.backend.native:
        pytest.skip("counts its chords in Celery's way")
    frozen = chord([work.add.s(1, 1)], work.put.s())
    frozen.freeze()

    @work.app.task(bind=True, shared=False)
    def send(self, retries, id):
        self.request.id, self.request.retries = id, retries
        frozen.apply_async()

    send.delay(0, "a").get(BOUND)
    assert work.has_noted(1) == [([2],)]
    send.delay(0, "a").get(BOUND)  # as when its worker was lost
    for count, (retries, id) in enumerate([(1, "a"), (0, "b")], 2):
        send.delay(retries, id).get(BOUND)
        assert work.has_noted(count) == [([2],)] * count


def test_a_chord_of_which_one_failed_says_which_and_runs_the_errbacks_of_its_body(work):
    failing = work.fail.s("bad").set(task_id="the-one")
    body = work.put.s().on_error(work.note_failure.s()).set(task_id="the-body")
    result = chord([failing, work.add.s(1, 1)])(body)
    with pytest.raises(ChordError, match=r"ValueError\('bad'\)") as raised:
        result.get(BOUND, follow_parents=False)
    assert "the-one" in str(raised.value) or not work.app.backend.native
    ((id, error),) = work.has_noted(1)
    assert id == "the-body"
    assert error.startswith("ChordError(")
    assert result.parent[1].get(BOUND) == 2  # the others run


def test_both_kinds_of_errbacks_and_callbacks_are_called(work):
    failed = work.fail.apply_async(link_error=[work.note_failure.s(), work.note_id.s()])
    both = sorted(work.has_noted(2), key=len)
    assert both == [(failed.id,), (failed.id, "ValueError('no')")]
    work.noted.clear()
    work.add.apply_async((1, 2), link=[work.put.s(), work.put.si("plain")])
    assert sorted(work.has_noted(2), key=repr) == [("plain",), (3,)]


def test_links_and_bodies_keep_values_that_json_lacks(work):
    work.fail.apply_async(link_error=work.put.si(b"error"))
    assert work.has_noted(1) == [(b"error",)]
    chord([work.same.s(b"x")], work.put.s(b"body"))()
    chain(work.same.s(b"y"), work.put.s(b"step"))()
    noted = sorted(work.has_noted(3)[1:], key=repr)
    assert noted == [([b"x"], b"body"), (b"y", b"step")]


def test_many_calls_go_in_one_message(work):
    assert work.same.map([1, 2, 3]).delay().get(BOUND) == [1, 2, 3]
    assert work.add.starmap([(1, 2), (3, 4)]).delay().get(BOUND) == [3, 7]
    assert work.add.chunks(zip(range(5), range(5)), 2)().get(timeout=BOUND) == [[0, 2], [4, 6], [8]]


def test_what_a_task_has_called_can_be_walked(work):
    result = work.spread.delay(3)
    ids = result.get(BOUND)
    assert sorted(child.id for child in result.children[0].results) == sorted(ids)
    values = [value for node, value in result.collect() if not node.children]
    assert sorted(values) == [0, 2, 4]
    assert result.graph.to_dot


def test_a_saved_group_is_found_by_its_id(work):
    result = group(work.add.s(1, 1), work.add.s(2, 2))()
    result.save()
    found = GroupResult.restore(result.id, app=work.app)
    assert found == result
    assert found.get(timeout=BOUND) == [2, 4]
    found.delete()
    assert GroupResult.restore(result.id, app=work.app) is None


def test_a_canvas_survives_json(work):
    import json

    made = chain(work.add.s(1, 1), group(work.add.s(1), work.add.s(2)), work.total.s())
    again = signature(json.loads(json.dumps(made)), app=work.app)
    assert again().get(timeout=BOUND) == made().get(timeout=BOUND) == 7


def test_a_group_leaves_in_few_round_trips(work, monkeypatch):
    broker, sizes = work.app.engine.broker("memory"), []
    publish = broker.publish
    monkeypatch.setattr(broker, "publish", lambda batch: sizes.append(len(batch)) or publish(batch))
    group(work.same.s(i).set(ignore_result=True) for i in range(1000))()
    assert sum(sizes) == 1000
    assert len(sizes) < 200


def test_what_a_lazy_header_gives_leaves_before_more_is_asked_of_it(work):
    def calls():
        yield work.put.s(1)
        yield work.put.s(2)
        assert work.has_noted(1)
        yield work.put.s(3)

    group(calls())()
    work.has_noted(3)
