"""APScheduler in front: what it publishes, and how long a script with it lives."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest
from apscheduler.executors.debug import DebugExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers import SchedulerAlreadyRunningError
from apscheduler.schedulers.background import BackgroundScheduler
from helpers import BOUND, until

import fsdf_engine
from fsdf_engine import BrokerEnum, ConfigurationError, get_consumer, task_deco
from fsdf_engine.core import exit as exits
from fsdf_engine.historic.scheduler import FsdfBackgroundScheduler, timing_publish_deco

MEMORY = {"broker_kind": BrokerEnum.LOCAL_PYTHON_QUEUE}
ONLY_SCHEDULES = """
from fsdf_engine import fsdf_background_scheduler, task_deco

@task_deco("scheduled")
def add(x, y):
    return x + y

def tell():
    print("tells", add.get_message_count(), flush=True)

fsdf_background_scheduler.add_timing_publish_job(add, args=(1, 2))
fsdf_background_scheduler.add_job(tell, "interval", seconds=0.2)
fsdf_background_scheduler.start()
"""
SHUTS_DOWN = """
import threading
from fsdf_engine import fsdf_background_scheduler as scheduler, task_deco

published = threading.Event()
scheduler.add_job(published.set)
scheduler.start()
published.wait(20)
scheduler.shutdown()
print("ends")
"""
DRAINS = """
import threading
from fsdf_engine import fsdf_background_scheduler, task_deco

@task_deco("drains", broker_kind=3)
def work():
    print("started", flush=True)
    threading.Event().wait(0.3)
    print("ended", flush=True)

fsdf_background_scheduler.add_timing_publish_job(work)
fsdf_background_scheduler.start()
work.consume()
"""
STARTS_IN_CHILDREN = """
from fsdf_engine import fsdf_background_scheduler, task_deco

@task_deco("children")
def work():
    print("ran", flush=True)

fsdf_background_scheduler.start()
if __name__ == "__main__":
    work.multi_process_consume(1)
"""


@pytest.fixture
def scheduler():
    scheduler = FsdfBackgroundScheduler()
    yield scheduler
    if scheduler.running:
        scheduler.shutdown()


@pytest.fixture
def task():
    return task_deco("scheduled", **MEMORY)(lambda x, y=0: None)


def test_job_publishes_by_position_and_by_name(scheduler, task):
    scheduler.start()
    scheduler.add_job(timing_publish_deco(task), args=(1, 2))
    scheduler.add_job(timing_publish_deco(task), kwargs={"x": 1})
    scheduler.add_timing_publish_job(task, "interval", id="often", seconds=0.05, args=(5,))
    until(lambda: task.get_message_count() >= 5)
    assert scheduler.get_job("often")


def test_consumers_and_their_publishers_can_be_scheduled(scheduler):
    consumer = get_consumer("plain", consuming_function=lambda x: None, **MEMORY)
    scheduler.start()
    scheduler.add_timing_publish_job(consumer, args=(1,))
    scheduler.add_timing_publish_job(consumer.publisher_of_same_queue, kwargs={"x": 2})
    until(lambda: consumer.publisher_of_same_queue.get_message_count() == 2)


def test_arguments_that_do_not_fit_are_refused_when_the_job_is_added(scheduler, task):
    with pytest.raises(ValueError, match="positional arguments"):
        scheduler.add_timing_publish_job(task, "interval", seconds=3, args=(1, 2, 3))
    with pytest.raises(ConfigurationError, match="decorate it with task_deco"):
        scheduler.add_timing_publish_job(print, "interval", seconds=3)


def test_jobs_are_in_the_configured_time_zone(scheduler, task, monkeypatch):
    def hour() -> int:
        job = scheduler.add_timing_publish_job(task, "cron", hour=14, args=(1,))
        now = datetime.datetime.now(datetime.timezone.utc)
        return job.trigger.get_next_fire_time(None, now).astimezone(datetime.timezone.utc).hour

    monkeypatch.setenv("FSDF_TIMEZONE", "Asia/Shanghai")
    assert hour() == 6
    scheduler.configure(timezone="Asia/Tokyo")
    assert hour() == 5
    monkeypatch.setenv("FSDF_TIMEZONE", "Asia/Nowhere")
    scheduler.configure()
    with pytest.raises(ConfigurationError, match="Asia/Nowhere.*name of a time zone"):
        hour()


def test_instant_that_has_passed_publishes_nothing_and_is_no_error(scheduler, task):
    past = datetime.datetime(2020, 7, 24, 13, 53, 6)
    scheduler.add_timing_publish_job(task, "date", run_date=past, id="past", args=(1,))
    scheduler.start()
    until(lambda: scheduler.get_job("past") is None)
    assert task.get_message_count() == 0


def test_start_that_comes_late_is_published_all_the_same(scheduler, task):
    late = datetime.datetime.now() - datetime.timedelta(seconds=20)
    scheduler.add_timing_publish_job(task, "date", run_date=late, args=(1,))
    scheduler.start()
    until(lambda: task.get_message_count() == 1)


def test_shutdown_amid_its_work_is_no_error(task, monkeypatch):
    raised, stopping = [], []

    class Executor(DebugExecutor):
        """Lets another thread begin to shut down while jobs are handed out."""

        def submit_job(self, job, run_times):
            thread = threading.Thread(target=scheduler.shutdown)
            thread.start()
            stopping.append(thread)
            until(lambda: not scheduler.running)

    monkeypatch.setattr(threading, "excepthook", raised.append)
    scheduler = FsdfBackgroundScheduler(executors={"default": Executor()})
    scheduler.add_timing_publish_job(task, args=(1,))
    scheduler.start()
    until(lambda: stopping)
    stopping[0].join(BOUND)
    assert not stopping[0].is_alive()
    assert raised == []


def test_start_that_fails_or_is_a_second_one_leaves_the_exit_as_it_was(scheduler):
    class Broken(MemoryJobStore):
        def start(self, *_: object) -> None:
            raise OSError("no store")

    held = len(exits.held)
    broken = FsdfBackgroundScheduler(jobstores={"default": Broken()})
    with pytest.raises(OSError):
        broken.start()
    assert len(exits.held) == held
    scheduler.start()
    with pytest.raises(SchedulerAlreadyRunningError):
        scheduler.start()
    assert len(exits.held) == held + 1
    scheduler.shutdown()
    assert len(exits.held) == held


def test_job_that_shuts_down_at_once_leaves_nothing_that_holds_the_exit(monkeypatch):
    held = len(exits.held)
    scheduler = FsdfBackgroundScheduler(executors={"default": DebugExecutor()})
    start = BackgroundScheduler.start

    def start_and_end(self, *args: object) -> None:
        start(self, *args)
        scheduler.shutdown()

    monkeypatch.setattr(BackgroundScheduler, "start", start_and_end)
    scheduler.start()
    assert len(exits.held) == held


def test_a_persistent_job_store_finds_the_task_again(tmp_path, monkeypatch, redis_url):
    from apscheduler.jobstores.redis import RedisJobStore

    code = "from fsdf_engine import task_deco\n@task_deco('kept')\ndef work(n): pass\n"
    code += "def plain(n): pass\n"
    (tmp_path / "kept_tasks.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    from kept_tasks import plain, work

    def started() -> FsdfBackgroundScheduler:
        place = urlsplit(redis_url)
        store = RedisJobStore(host=place.hostname, port=place.port)
        scheduler = FsdfBackgroundScheduler(jobstores={"default": store})
        scheduler.start(paused=True)
        return scheduler

    scheduler = started()
    scheduler.add_timing_publish_job(work, "interval", hours=1, args=(1,), id="kept")
    with pytest.raises(ValueError, match="cannot be serialized"):
        consumer = get_consumer("kept_2", consuming_function=plain)
        scheduler.add_timing_publish_job(consumer, "interval", hours=1, args=(1,))
    scheduler.shutdown()
    scheduler = started()
    job = scheduler.get_job("kept")
    job.func(*job.args)
    scheduler.shutdown()
    assert work.get_message_count() == 1


def test_asking_for_the_scheduler_starts_nothing():
    code = (
        "import threading; from fsdf_engine import fsdf_background_scheduler, timing_publish_deco;"
        "print(threading.active_count(), fsdf_background_scheduler.running)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["1", "False"]
    assert fsdf_engine.fsdf_background_scheduler is fsdf_engine.fsdf_background_scheduler


def test_scheduler_without_its_extra_says_what_to_install():
    code = (
        "import sys; sys.modules['apscheduler'] = None\n"
        "from fsdf_engine import fsdf_background_scheduler"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'MissingExtra: the scheduler needs APScheduler 3: pip install "fsdf[schedule]"' in (
        done.stderr
    )


def test_script_that_only_schedules_lives_until_a_signal(run):
    program = run("", code=ONLY_SCHEDULES)
    program.until("tells 1", 2)
    program.end()


def test_script_ends_after_shutdown(run):
    program = run("", code=SHUTS_DOWN)
    assert program.wait() == 0, program.said
    assert program.said.endswith("ends\n")


def test_script_that_schedules_and_consumes_drains_at_a_signal(run):
    program = run("", code=DRAINS)
    program.until("started")
    assert "ended" in program.end()


def test_child_process_that_would_schedule_too_is_told_so(run):
    program = run("", code=STARTS_IN_CHILDREN)
    program.until("start the scheduler under")
