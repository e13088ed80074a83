"""Chains, groups, chords, links and results of many behave the same."""

from __future__ import annotations

import pytest

PROJECT = """
import json
from celery import chain, chord, chunks, group, signature, xmap, xstarmap
from celery.result import AsyncResult, GroupResult, ResultSet, result_from_tuple

app.conf.result_extended = True

@app.task
def add(x, y):
    return x + y

@app.task
def mul(x, y):
    return x * y

@app.task
def total(numbers, plus=0):
    return sum(numbers) + plus

@app.task
def same(*args, **kwargs):
    return [list(args), kwargs]

@app.task
def fail(*args):
    raise ValueError("wrong")

@app.task(bind=True)
def ids(self, *args):
    return [self.request.root_id, self.request.parent_id, self.request.group_index]

@app.task(bind=True)
def grows(self, n):
    raise self.replace(group(add.si(i, 1) for i in range(n)))

@app.task(bind=True)
def becomes(self, n):
    raise self.replace(chain(add.si(n, 1), add.s(1)))

@app.task(bind=True)
def joins(self, n):
    raise self.replace(chord([add.si(i, 1) for i in range(n)], total.s()))

@app.task
def told(*args):
    with open(HERE + "/told", "a") as file:
        file.write(repr([type(each).__name__ for each in args]) + "\\n")

@app.task
def kept(value, where):
    with open(HERE + "/" + where, "a") as file:
        file.write(repr(value) + "\\n")
    return value

def read(where, count=1):
    path, lines = HERE + "/" + where, []
    for _ in range(2000):
        if os.path.exists(path):
            lines = open(path).read().splitlines()
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    return lines
"""


@pytest.mark.parametrize(
    ("canvas", "said"),
    [
        ("chain(add.s(1, 2), mul.s(3), add.s(1))", 10),
        ("add.s(1, 2) | mul.s(3)", 9),
        ("add.si(1, 2) | add.si(3, 4)", 7),
        ("chain(add.s(1, 2), chain(mul.s(3), chain(add.s(1))))", 10),
        ("group(add.s(i, i) for i in range(4))", [0, 2, 4, 6]),
        ("group([add.s(1, 1)])", [2]),
        ("group(add.s(1, 1), group(add.s(2, 2), add.s(3, 3)))", [2, 4, 6]),
        ("chord([add.s(i, i) for i in range(4)], total.s())", 12),
        ("chord([add.s(i, i) for i in range(4)])(total.s(plus=1)) and "
         "chord([add.s(i, i) for i in range(4)], total.s(plus=1))", 13),
        ("group(add.s(i, i) for i in range(3)) | total.s()", 6),
        ("chain(add.s(1, 1), group(add.s(i) for i in range(3)))", [2, 3, 4]),
        ("chain(add.s(1, 1), group(add.s(i) for i in range(3)), total.s())", 9),
        ("chain(group(add.s(1, 1), add.s(2, 2)), total.s(), mul.s(2))", 12),
        ("chain(group(add.s(1, 1), add.s(2, 2)), group(same.s(), same.s(1)))",
         [[[[2, 4]], {}], [[[2, 4], 1], {}]]),
        ("chord([chain(add.s(1, 1), mul.s(2)), add.s(1, 0)], total.s())", 5),
        ("chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(1, 0)], total.s())", 7),
        ("chord([group(add.s(1, 1), add.s(2, 2)), add.s(1, 0)], total.s())", 7),
        ("chord([add.s(1, 1)], chain(total.s(), mul.s(5)))", 10),
        ("chord([add.s(1, 1), add.s(2, 2)], group(same.s(), same.s()))",
         [[[[2, 4]], {}], [[[2, 4]], {}]]),
        ("chord([], total.s())", 0),
        ("chain(add.s(1, 1), chord([add.s(1), add.s(2)], total.s()))", 7),
        ("add.chunks(zip(range(4), range(4)), 2)", [[0, 2], [4, 6]]),
        ("add.chunks(zip(range(4), range(4)), 2).group()", [[0, 2], [4, 6]]),
        ("add.starmap([(1, 2), (3, 4)])", [3, 7]),
        ("total.map([[1, 2], [3]])", [3, 3]),
        ("same.s(1, a=2).clone((3,), {'b': 4})", [[3, 1], {"a": 2, "b": 4}]),
        ("same.si(1, a=2).clone((3,), {'b': 4})", [[1], {"a": 2}]),
        ("signature('proj.add', args=(1, 2))", 3),
        ("signature(dict(add.s(1, 2)))", 3),
        ("signature(json.loads(json.dumps(add.s(1, 2) | mul.s(2))))", 6),
        ("chain(*[add.s(0, 0)] + [add.s(1)] * 20)", 20),
        ("chord([add.s(i, 0) for i in range(60)], total.s())", 1770),
        ("grows.s(3)", [1, 2, 3]),
        ("becomes.s(3)", 5),
        ("joins.s(3)", 6),
        ("chain(becomes.s(3), add.s(1))", 6),
        ("chain(joins.s(3), add.s(1))", 7),
        ("chord([becomes.s(1), joins.s(2)], total.s())", 6),
        ("group(becomes.s(1), joins.s(2))", [3, 3]),
    ],
)  # fmt: skip
def test_a_canvas_gives(ask, canvas, said):
    assert ask(f"said = ({canvas}).apply_async().get(timeout=30)") == said


@pytest.mark.parametrize(
    "canvas",
    [
        "chain(fail.s(), add.s(1))",
        "chain(add.s(1, 1), fail.s(), add.s(1))",
        "group(add.s(1, 1), fail.s())",
        "group(add.s(1, 1), fail.s()) | total.s()",
        "chord([add.s(1, 1), fail.s()], total.s())",
        "chord([add.s(1, 1), chain(add.s(1, 1), fail.s())], total.s())",
        "chord([add.s(1, 1)], fail.s())",
        "chord([add.s(1, 1)], chain(fail.s(), add.s(1)))",
    ],
)
def test_a_failure_in_a_canvas_is_raised(ask, canvas):
    said = ask(f"""
        r = ({canvas}).apply_async()
        try:
            said = r.get(timeout=30)
        except Exception as error:
            said = type(error).__name__, str(error)
    """)
    assert said == ["ValueError", "wrong"]


def test_links_are_called_with_the_result_and_errbacks_with_the_error(ask):
    said = ask("""
        add.apply_async((1, 2), link=[kept.s("one"), kept.s("two")]).get(timeout=20)
        fail.apply_async(link_error=told.s(), link=kept.s("never")).get(timeout=20, propagate=False)
        said = read("one"), read("two"), read("told"), os.path.exists(HERE + "/never")
    """)
    assert said == [["3"], ["3"], ["['Context', 'ValueError', 'str']"], False]


def test_a_frozen_chord_that_is_sent_again_calls_its_body_again(ask):
    said = ask("""
        r = chord([add.s(1, 1), add.s(2, 2)], kept.s("frozen"))
        r.freeze()
        ids = [r.apply_async().id]
        read("frozen")
        ids.append(r.apply_async().id)
        said = [len(set(ids)), read("frozen", 2)]
    """)
    assert said == [1, ["[2, 4]"] * 2]


def test_an_errback_of_a_chord_is_called_once(ask):
    said = ask("""
        body = total.s().on_error(kept.s("chord"))
        r = chord([add.s(1, 1), fail.s()], body).apply_async()
        r.get(timeout=20, propagate=False)
        said = len(read("chord"))
    """)
    assert said == 1


def test_members_know_their_root_their_parent_and_their_place(ask):
    said = ask("""
        r = chain(ids.si(), ids.si(), group(ids.si(), ids.si())).apply_async()
        one, two = r.parent.parent, r.parent
        said = [one.get(timeout=20), two.get(timeout=20), r.get(timeout=20)]
        ids = {one.id: "one", two.id: "two", r.id: "group"}
        name = lambda each: ids.get(each, each)
        said = [[name(e) for e in said[0]], [name(e) for e in said[1]],
                [[name(e) for e in each] for each in said[2]]]
    """)
    assert said[:2] == [["one", None, None], ["one", "one", None]]
    assert said[2] == [["one", "two", 0], ["one", "two", 1]]


def test_the_result_of_a_group_can_be_asked_and_kept(ask):
    said = ask("""
        r = group(add.s(i, i) for i in range(3)).apply_async()
        r.save()
        again = GroupResult.restore(r.id)
        said = [again.get(timeout=20), again.ready(), again.successful(), again.failed(),
                again.completed_count(), len(again), again == r,
                result_from_tuple(r.as_tuple()).get(timeout=20),
                sorted(again.iterate(timeout=20)) if hasattr(again, "iterate") else [0, 2, 4]]
        r.delete()
        said.append(GroupResult.restore(r.id))
    """)
    assert said == [[0, 2, 4], True, True, False, 3, 3, True, [0, 2, 4], [0, 2, 4], None]


def test_collect_yields_what_has_grown_from_a_result(ask):
    said = ask("""
        r = chain(add.s(1, 1), add.s(2)).apply_async()
        r.get(timeout=20)
        said = [value for _, value in r.parent.collect()], len(r.parent.children)
    """)
    assert said == [[2, 4], 1]


def test_a_set_of_results_is_one(ask):
    said = ask("""
        many = ResultSet([add.delay(i, 1) for i in range(3)])
        said = many.join(timeout=20), many.get(timeout=20), many.successful(), many.waiting()
    """)
    assert said == [[1, 2, 3], [1, 2, 3], True, False]


def test_signatures_say_what_they_are(ask):
    said = ask("""
        said = [
            repr(add.s(1, 2)), repr(add.s(1, 2) | mul.s(3)), repr(group(add.s(1, 1), add.s(2, 2))),
            repr(chord([add.s(1, 1)], total.s())), dict(add.s(1, y=2)),
            type(add.s(1) | group(mul.s(1), mul.s(2)) | total.s()).__name__,
            add.s(1).set(queue="other", priority=4).options, add.s(1).args,
            add.s(1, 2) == add.s(1, 2),
        ]
    """)
    assert said == [
        "proj.add(1, 2)", "proj.add(1, 2) | mul(3)", "group((proj.add(1, 1), add(2, 2)))",
        "%proj.total([add(1, 1)])",
        {"task": "proj.add", "args": [1], "kwargs": {"y": 2}, "options": {}, "subtask_type": None,
         "immutable": False},
        "_chain", {"queue": "other", "priority": 4}, [1], True,
    ]  # fmt: skip


def test_a_canvas_runs_eagerly(ask):
    said = ask("""
        app.conf.task_always_eager = True
        said = [
            chain(add.s(1, 2), mul.s(3))().get(), group(add.s(1, 1), add.s(2, 2))().get(),
            chord([add.s(1, 1), add.s(2, 2)])(total.s()).get(),
            (add.s(1, 1) | group(add.s(1), add.s(2)) | total.s()).apply().get(),
        ]
        app.conf.task_always_eager = False
    """)
    assert said == [9, [2, 4], 6, 7]
