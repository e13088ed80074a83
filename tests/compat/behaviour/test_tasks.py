"""Tasks, hooks, signals, retries, requests and results behave the same."""

from __future__ import annotations

import pytest

PROJECT = """
from celery import Task, shared_task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from kombu import Queue

app.conf.update(
    task_routes={"proj.routed": {"queue": "celery", "priority": 3}},
    result_extended=False, task_track_started=True, task_acks_late=False,
)
HEARD = HERE + "/heard."

def hear(id, *words):
    with open(HEARD + str(id), "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def heard(id, count=0):
    for _ in range(2000):
        lines = open(HEARD + id).read().splitlines() if os.path.exists(HEARD + id) else []
        if len(lines) >= count:
            return lines
        time.sleep(0.01)
    return lines

class Hooked(Task):
    abstract = True

    def before_start(self, task_id, args, kwargs):
        hear(task_id, "before_start", args, kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        hear(task_id, "on_success", retval, args, kwargs)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        hear(task_id, "on_failure", repr(exc), args, kwargs, type(einfo).__name__)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        hear(task_id, "on_retry", repr(exc), args, kwargs, type(einfo).__name__)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        hear(task_id, "after_return", status, repr(retval), args, kwargs, einfo)

def receive(name, id_of):
    def receiver(sender=None, signal=None, **facts):
        id = id_of(sender, facts)
        if getattr(sender, "__module__", None) == "proj" and "hooked" in sender.name:
            hear(id, name, *sorted(facts))
    getattr(signals, name).connect(receiver, weak=False)

for name in "task_prerun", "task_postrun", "task_failure":
    receive(name, lambda sender, facts: facts["task_id"])
receive("task_success", lambda sender, facts: sender.request.id)
receive("task_retry", lambda sender, facts: facts["request"].id)

@app.task(base=Hooked)
def hooked(x, y=2):
    return x / y

@app.task(base=Hooked, bind=True, max_retries=1, default_retry_delay=1)
def hooked_retry(self, x):
    raise self.retry(exc=KeyError(x))

@app.task(base=Hooked)
def hooked_ignore():
    raise Ignore()

@app.task
def add(x, y):
    return x + y

@app.task
def div(x, y):
    return x / y

@app.task(bind=True)
def show(self, *names):
    return {name: getattr(self.request, name, "none") for name in names}

@app.task(bind=True)
def call(self, a, *args, b=1, **kwargs):
    return [list(self.request.args), self.request.kwargs, [a, list(args), b, kwargs]]

@app.task(bind=True, max_retries=3)
def counts(self, until):
    if self.request.retries < until:
        raise self.retry(countdown=0)
    return self.request.retries

@app.task(bind=True, max_retries=1)
def gives_up(self, with_exc):
    raise self.retry(countdown=0, **({"exc": ValueError("mine")} if with_exc else {}))

@app.task(autoretry_for=(ValueError,), max_retries=2, retry_backoff=False, default_retry_delay=0)
def auto(x):
    raise ValueError(x)

@app.task(bind=True)
def changes(self, x, y=0):
    if not self.request.retries:
        raise self.retry(args=(x + 1,), kwargs={"y": 5}, countdown=0)
    return [x, y, self.request.id]

@app.task(bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 5})
    for _ in range(1000):
        if os.path.exists(HERE + "/go." + self.request.id):
            return "done"
        time.sleep(0.01)

@app.task(ignore_result=True)
def quiet():
    return 1

@app.task(bind=True)
def replaces(self, x):
    raise self.replace(add.s(x, 10))

class Own(Exception):
    pass

@app.task
def own_error(x):
    raise Own(x, {"k": 1})

@app.task(bind=True)
def ignores(self):
    self.update_state(state="MINE")
    raise Ignore()

@app.task
def rejects():
    raise Reject("no", requeue=False)

@app.task
def routed():
    return show.name

@app.task(bind=True)
def parent(self):
    return add.delay(1, 1).id

class Counter(Task):
    name = "proj.Counter"
    count = 0

    def run(self):
        self.count += 1
        return self.count

Counter = app.register_task(Counter())

@shared_task
def shared(x):
    return x

@app.task(base=Task, typing=False)
def untyped(x):
    return x

class Wrapped(Task):
    def __call__(self, *args, **kwargs):
        return ["wrapped", super().__call__(*args, **kwargs)]

@app.task(base=Wrapped)
def wrapped(x):
    return x
"""


def test_hooks_and_signals_of_a_success_come_in_order(ask):
    assert ask("r = hooked.delay(4); r.get(timeout=20); said = heard(r.id, 6)") == [
        "task_prerun args kwargs task task_id",
        "before_start [4] {}",
        "on_success 2.0 [4] {}",
        "task_success result runtime",
        "after_return SUCCESS 2.0 [4] {} None",
        "task_postrun args kwargs retval state task task_id",
    ]


def test_hooks_and_signals_of_a_failure_come_in_order(ask):
    code = "r = hooked.delay(4, y=0); r.get(timeout=20, propagate=False); said = heard(r.id, 6)"
    assert ask(code) == [
        "task_prerun args kwargs task task_id",
        "before_start [4] {'y': 0}",
        "on_failure ZeroDivisionError('division by zero') [4] {'y': 0} ExceptionInfo",
        "task_failure args einfo exception kwargs task_id traceback",
        "after_return FAILURE ZeroDivisionError('division by zero') [4] {'y': 0} None",
        "task_postrun args kwargs retval state task task_id",
    ]


def test_hooks_and_signals_of_a_retry_come_in_order(ask):
    code = "r = hooked_retry.delay(4); r.get(timeout=20, propagate=False); said = heard(r.id, 11)"
    said = ask(code)
    assert [line.split()[0] for line in said] == [
        "task_prerun", "before_start", "on_retry", "task_retry", "task_postrun",
        "task_prerun", "before_start", "on_failure", "task_failure", "after_return", "task_postrun",
    ]  # fmt: skip
    assert said[2] == "on_retry KeyError(4) [4] {} ExceptionInfo"
    assert said[3] == "task_retry einfo reason request"


def test_what_is_ignored_has_neither_hook_nor_result(ask):
    code = "r = hooked_ignore.delay(); said = heard(r.id, 3), r.state"
    assert ask(code) == [
        ["task_prerun args kwargs task task_id", "before_start [] {}",
         "task_postrun args kwargs retval state task task_id"], "STARTED",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("call.delay(1)", [[1], {}, [1, [], 1, {}]]),
        ("call.delay(1, 2, 3, b=4, c=5)", [[1, 2, 3], {"b": 4, "c": 5}, [1, [2, 3], 4, {"c": 5}]]),
        ("call.delay(a=1)", [[], {"a": 1}, [1, [], 1, {}]]),
        ("call.delay(b=2, a=1)", [[], {"b": 2, "a": 1}, [1, [], 2, {}]]),
        ("call.apply_async([1], {'extra': 2})", [[1], {"extra": 2}, [1, [], 1, {"extra": 2}]]),
        ("app.send_task('proj.call', (1, 2))", [[1, 2], {}, [1, [2], 1, {}]]),
        ("call.s(2).clone(args=(1,)).delay()", [[1, 2], {}, [1, [2], 1, {}]]),
        ("add.delay(x=1, y=2)", 3),
        ("add.apply_async((1,), {'y': 2})", 3),
        ("shared.delay([1, {'a': None}])", [1, {"a": None}]),
        ("untyped.delay(1)", 1),
        ("wrapped.delay(1)", ["wrapped", 1]),
        ("add.delay('ü', '✓')", "ü✓"),
        ("add.delay(0.1, 2**70)", 0.1 + 2**70),
        ("add.delay(2**70, 1)", 2**70 + 1),
        ("counts.delay(2)", 2),
        ("changes.delay(1)", None),
        ("replaces.delay(5)", 15),
        ("routed.delay()", "proj.show"),
    ],
)
def test_a_call_gives(ask, call, said):
    given = ask(f"r = {call}; said = r.get(timeout=20), r.id")
    assert given[0] == (said if said is not None else [2, 5, given[1]])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("div.delay(1, 0)", ["ZeroDivisionError", "division by zero", "FAILURE"]),
        ("own_error.delay(1)", ["Own", "(1, {'k': 1})", "FAILURE"]),
        ("gives_up.delay(True)", ["ValueError", "mine", "FAILURE"]),
        ("auto.delay('x')", ["ValueError", "x", "FAILURE"]),
        ("rejects.delay()", ["Reject", "", "FAILURE"]),
        ("app.send_task('proj.nowhere')", ["NotRegistered", "'proj.nowhere'", "FAILURE"]),
        ("app.send_task('proj.add', (1,))",
         ["TypeError", "add() missing 1 required positional argument: 'y'", "FAILURE"]),
        ("add.apply_async((1, 2), expires=-1)", ["TaskRevokedError", "expired", "REVOKED"]),
    ],
)  # fmt: skip
def test_a_call_raises(ask, call, said):
    given = ask(f"""
        r = {call}
        try:
            r.get(timeout=20)
        except Exception as error:
            said = type(error).__name__, str(error), r.state
    """)
    if said[0] == "Reject":
        said[1] = given[1]
    assert given == said


def test_retries_without_an_exception_end_with_their_own(ask):
    said = ask("""
        r = gives_up.delay(False)
        error = r.get(timeout=20, propagate=False)
        said = type(error).__name__, str(error).replace(r.id, "ID")
    """)
    assert said == [
        "MaxRetriesExceededError",
        "Can't retry proj.gives_up[ID] args:(False,) kwargs:{}",
    ]


def test_wrong_arguments_are_told_where_they_are_given(ask):
    for call in (
        "add.delay(1)",
        "add.delay(1, 2, 3)",
        "add.delay(1, z=2)",
        "add.delay(object(), 1)",
    ):
        said = ask(f"""
            try:
                {call}
            except Exception as error:
                said = type(error).__name__
        """)
        assert said == ("EncodeError" if "object" in call else "TypeError")


def test_a_request_has_what_the_caller_gave(ask):
    names = (
        "id", "root_id", "parent_id", "retries", "is_eager", "called_directly", "timelimit",
        "group", "correlation_id", "headers", "callbacks", "errbacks", "chain", "chord", "own",
        "expires", "eta", "task", "lang", "shadow", "ignore_result",
    )  # fmt: skip
    said = ask(f"""
        r = show.apply_async({names!r}, headers={{"own": "mine"}}, time_limit=9, soft_time_limit=8,
                             task_id="chosen", shadow="other")
        said = r.get(timeout=20)
    """)
    assert said == {
        "id": "chosen", "root_id": "chosen", "parent_id": None, "retries": 0, "is_eager": False,
        "called_directly": False, "timelimit": [9, 8], "group": None, "correlation_id": "chosen",
        "headers": {"own": "mine"}, "callbacks": None, "errbacks": None, "chain": None,
        "chord": None, "own": "mine", "expires": None, "eta": None, "task": "proj.show",
        "lang": "py", "shadow": "other", "ignore_result": False,
    }  # fmt: skip


def test_a_request_has_what_its_caller_left_out(ask):
    names = "timelimit", "stamps", "stamped_headers", "argsrepr", "kwargsrepr", "properties"
    said = ask(f"""
        r = show.delay(*{names!r})
        said = r.id, r.get(timeout=20)
    """)
    id, facts = said
    told = facts.pop("properties")
    assert facts == {
        "timelimit": [None, None], "stamps": {}, "stamped_headers": None, "kwargsrepr": "{}",
        "argsrepr": repr(names),
    }  # fmt: skip
    assert (told["correlation_id"], told["delivery_mode"], told["priority"]) == (id, 2, 0)
    assert told["delivery_info"]["routing_key"] == "celery"


def test_delivery_info_says_where_it_came_by(ask):
    said = ask("said = show.apply_async(('delivery_info', 'hostname'), priority=3).get(timeout=20)")
    info = said["delivery_info"]
    assert (info["exchange"], info["routing_key"], info["priority"]) == ("", "celery", 3)
    assert said["hostname"].startswith("celery@")


def test_a_child_knows_its_parent_and_a_parent_its_children(ask):
    said = ask("""
        r = parent.delay()
        child = r.get(timeout=20)
        said = [each.id for each in r.children] == [child], r.parent, len(r.children)
        app.AsyncResult(child).get(timeout=20)
    """)
    assert said == [True, None, 1]


def test_states_are_seen_from_outside(ask):
    said = ask("""
        r = progress.delay()
        for _ in range(2000):
            if r.state == "PROGRESS": break
            time.sleep(0.01)
        before = r.state, r.info, r.ready(), r.successful()
        open(HERE + "/go." + r.id, "w").close()
        r.get(timeout=20)
        said = *before, r.state, r.ready(), r.successful(), r.failed(), r.result
    """)
    assert said == ["PROGRESS", {"done": 5}, False, False, "SUCCESS", True, True, False, "done"]


def test_what_is_ignored_keeps_the_state_that_it_was_given(ask):
    said = ask("""
        r = ignores.delay()
        for _ in range(2000):
            if r.state == "MINE": break
            time.sleep(0.01)
        said = r.state, quiet.delay().get(timeout=20)
    """)
    assert said == ["MINE", None]


def test_a_result_that_never_comes_is_a_timeout(ask):
    said = ask("""
        from celery.exceptions import TimeoutError
        r = app.AsyncResult("nobody")
        try:
            r.get(timeout=0.1)
        except TimeoutError as error:
            said = str(error), r.state, r.result, r.ready()
    """)
    assert said == ["The operation timed out.", "PENDING", None, False]


def test_a_failure_is_not_raised_where_that_is_not_wanted(ask):
    said = ask("""
        r = div.delay(1, 0)
        error = r.get(timeout=20, propagate=False)
        said = repr(error), "ZeroDivisionError" in r.traceback, r.failed(), r.forget(), r.state
    """)
    assert said == ["ZeroDivisionError('division by zero')", True, True, None, "PENDING"]


def test_countdown_eta_and_expiry(ask):
    said = ask("""
        from datetime import datetime, timedelta, timezone
        begun = time.time()
        one = add.apply_async((1, 1), countdown=1)
        two = add.apply_async((1, 2), eta=datetime.now(timezone.utc) + timedelta(seconds=1))
        three = add.apply_async((1, 3), eta=datetime.now(timezone.utc) - timedelta(days=1))
        late = add.apply_async((1, 4), countdown=1, expires=0.2)
        said = three.get(timeout=20), one.get(timeout=20), two.get(timeout=20)
        passed = time.time() - begun
        late.get(timeout=20, propagate=False)
        said = *said, 0.9 < passed < 6, late.state
    """)
    assert said == [4, 2, 3, True, "REVOKED"]


def test_tasks_run_eagerly_where_they_are_called(ask):
    said = ask("""
        app.conf.task_always_eager = True
        r = add.delay(1, 2)
        e = div.delay(1, 0)
        said = [type(r).__name__, r.get(), r.state, r.ready(), e.state, repr(e.result),
                show.delay("is_eager", "retries", "called_directly").get(),
                counts.delay(2).get()]
        app.conf.task_eager_propagates = True
        try:
            div.delay(1, 0)
        except ZeroDivisionError:
            said.append("raised")
        app.conf.task_always_eager = app.conf.task_eager_propagates = False
        said += [add.apply((1, 2)).get(), add(1, 2), wrapped(1)]
    """)
    assert said == [
        "EagerResult", 3, "SUCCESS", True, "FAILURE", "ZeroDivisionError('division by zero')",
        {"is_eager": True, "retries": 0, "called_directly": False}, 2, "raised", 3, 3,
        ["wrapped", 1],
    ]  # fmt: skip


def test_publishing_is_told_and_may_be_changed(ask):
    said = ask("""
        said = []

        @signals.before_task_publish.connect(sender="proj.show")
        def before(sender, body, exchange, routing_key, headers, properties, **facts):
            said.append([sender, body[0], body[1], exchange, routing_key, headers["task"],
                         headers["retries"], headers["lang"], properties["correlation_id"]])
            said.append(sorted({"declare", "retry_policy"} & set(facts)))
            headers["added"] = "by receiver"

        @signals.after_task_publish.connect(sender="proj.show")
        def after(sender, body, headers, exchange, routing_key, **facts):
            said.append([sender, headers["id"], exchange, routing_key])

        r = show.apply_async(("added", "headers"), task_id="told")
        said.append(r.get(timeout=20))
        signals.before_task_publish.disconnect(before, sender="proj.show")
        signals.after_task_publish.disconnect(after, sender="proj.show")
    """)
    assert said == [
        ["proj.show", ["added", "headers"], {}, "", "celery", "proj.show", 0, "py", "told"],
        ["declare", "retry_policy"],
        ["proj.show", "told", "", "celery"],
        {"added": "by receiver", "headers": {"added": "by receiver"}},
    ]


def test_an_instance_lives_as_long_as_its_process(ask):
    said = ask("said = [Counter.delay().get(timeout=20) for _ in range(3)]")
    assert said == [1, 2, 3]
