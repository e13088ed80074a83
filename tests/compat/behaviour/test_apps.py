"""Settings, routing, priorities, loading and registration behave the same."""

from __future__ import annotations

PROJECT = """
import celery
from celery import Celery, current_app, shared_task, signals
from celery.exceptions import ImproperlyConfigured, NotRegistered
from kombu import Exchange, Queue

@app.task
def add(x, y):
    return x + y

@app.task(bind=True)
def show(self):
    info = self.request.delivery_info
    return info["routing_key"], info["priority"]

def new(**options):
    return Celery("new", set_as_current=False, **{"broker": "memory://", **options})

def raised(fun, *args, **kwargs):
    try:
        return fun(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
"""


def test_settings_come_from_objects_dicts_modules_and_namespaces(ask):
    said = ask("""
        class Config:
            task_serializer = "pickle"
            timezone = "Europe/Berlin"

        one, two, three, four = new(), new(), new(), new()
        one.config_from_object(Config)
        two.conf.update({"task_default_queue": "two"}, result_expires=5)
        os.environ.update(CELERY_X="1")
        three.config_from_object(type("C", (), {"CELERY_TASK_ALWAYS_EAGER": True, "OTHER": 1}),
                                 namespace="CELERY")
        four.config_from_object(type("C", (), {"CELERY_ALWAYS_EAGER": True}))
        said = [one.conf.task_serializer, str(one.timezone), two.conf["task_default_queue"],
                two.conf.result_expires, three.conf.task_always_eager, four.conf.task_always_eager,
                one.conf.get("nothing", 7), "task_serializer" in one.conf,
                one.conf.task_default_priority, one.conf.worker_prefetch_multiplier,
                one.conf.CELERY_TASK_SERIALIZER, raised(lambda: one.conf.nothing)]
    """)
    assert said == [
        "pickle", "Europe/Berlin", "two", 5, True, True, 7, True, None, 4, "pickle",
        "AttributeError",
    ]  # fmt: skip


def test_wrong_settings_and_addresses_are_told(ask):
    said = ask(
        """
        mixed = new()
        both = {"CELERY_ALWAYS_EAGER": True, "task_serializer": "x"}
        mixed.config_from_object(type("C", (), both))
        missing = new()
        missing.config_from_object("no.such.module")
        said = [raised(lambda: mixed.conf.task_serializer), raised(lambda: missing.conf.timezone),
                raised(lambda: new().config_from_envvar("NO_SUCH_VARIABLE")),
                raised(lambda: new(backend="nope://").backend),
                raised(lambda: new().AsyncResult("x").get(timeout=1))]
    """.replace('"task_serializer": "x"}))', '"task_serializer": "x"}),)')
    )
    assert said == [
        "ImproperlyConfigured", "ModuleNotFoundError", "ImproperlyConfigured",
        "ModuleNotFoundError", "NotImplementedError",
    ]  # fmt: skip


def test_routes_choose_queues(ask):
    said = ask("""
        other = new()
        other.conf.task_routes = [
            {"a.*": {"queue": "star"}, "a.exact": "exact"},
            lambda name, *args, **kwargs: {"queue": "f"} if name == "b" else None,
        ]
        other.conf.task_queues = [Queue("usual"), Queue("star", routing_key="s.#")]
        other.conf.task_default_queue = "usual"
        router = other.amqp.router
        where = lambda name, **options: router.route(options, name)["queue"].name
        said = [where("a.x"), where("a.exact"), where("b"), where("c"), where("c", queue="given"),
                sorted(other.amqp.queues)]
        app.conf.task_queues = None
    """)
    assert said[:5] == ["star", "exact", "f", "usual", "given"]
    assert {"usual", "star"} <= set(said[5])


def test_a_call_may_name_its_queue_and_priority(ask):
    said = ask("""
        sent = [show.apply_async(queue="celery", priority=p) for p in (None, 0, 3, 9)]
        said = [each.get(timeout=20) for each in sent]
    """)
    assert said == [["celery", 0], ["celery", 0], ["celery", 3], ["celery", 9]]


def test_tasks_are_registered_by_name(ask):
    said = ask("""
        other = new()

        @other.task
        def one():
            return 1

        @other.task(name="two", shared=False)
        def two():
            return 2

        @shared_task(name="three")
        def three():
            return current_app.main

        said = [one.name, two.name, raised(lambda: other.tasks["none"]), "two" in other.tasks,
                other.tasks["two"](), "two" in app.tasks, "three" in app.tasks, three(),
                add.name, add.app is app, add.__name__, add.max_retries, add.run(1, 2)]
    """)
    assert said == [
        "new.one", "two", "NotRegistered", True, 2,
        False, True, "proj", "proj.add", True, "add", 3, 3,
    ]  # fmt: skip


def test_signals_of_an_app_are_sent(ask):
    said = ask("""
        heard = []
        other = new()
        configured = lambda sender=None, **kw: heard.append("configure")
        finalized = lambda sender=None, **kw: heard.append("finalize")
        after = lambda sender=None, **kw: heard.append("after")
        other.on_configure.connect(configured)
        other.on_after_configure.connect(after)
        other.on_after_finalize.connect(finalized)
        other.conf.timezone, other.tasks
        said = heard, other.configured, other.finalized
    """)
    assert said == [["configure", "after", "finalize"], True, True]


def test_periodic_tasks_are_entries(ask):
    said = ask("""
        from celery.schedules import crontab, schedule
        other = new()
        signature = other.signature("x", args=(1,))
        key = other.add_periodic_task(10.0, signature, name="ten", expires=5)
        other.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), signature, name="seven")
        entries = other.conf.beat_schedule
        said = [key, sorted(entries), entries["ten"]["task"], list(entries["ten"]["args"]),
                entries["ten"]["options"], repr(entries["seven"]["schedule"]),
                schedule(10).is_due(__import__("datetime").datetime(2020, 1, 1)).is_due]
    """)
    assert said[:5] == ["ten", ["seven", "ten"], "x", [1], {"expires": 5}]
    assert said[5].startswith("<crontab: 30 7") and said[6] is True


def test_control_reaches_the_worker(ask):
    said = ask("""
        pings = app.control.ping(timeout=9, limit=1)
        inspect = app.control.inspect(timeout=9, limit=1)
        [name] = inspect.ping()
        said = [list(pings[0].values()), inspect.ping()[name],
                "proj.add" in inspect.registered()[name],
                inspect.active()[name], inspect.reserved()[name], inspect.scheduled()[name],
                inspect.revoked()[name], [q["name"] for q in inspect.active_queues()[name]],
                sorted({"pid", "pool", "total", "broker", "clock", "rusage", "uptime",
                        "prefetch_count"} - set(inspect.stats()[name])),
                app.control.rate_limit("proj.add", "100/s", reply=True, limit=1)[0][name],
                app.control.time_limit("proj.add", soft=5, hard=9, reply=True, limit=1)[0][name]]
    """)
    assert said == [
        [{"ok": "pong"}], {"ok": "pong"}, True, [], [], [], [], ["celery"], [],
        {"ok": "new rate limit set successfully"}, {"ok": "time limits set successfully"},
    ]  # fmt: skip


def test_a_task_that_waits_is_revoked(ask):
    said = ask("""
        r = add.apply_async((1, 2), countdown=2)
        r.revoke()
        try:
            r.get(timeout=20)
        except Exception as error:
            said = type(error).__name__, str(error), r.state
    """)
    assert said == ["TaskRevokedError", "revoked", "REVOKED"]
