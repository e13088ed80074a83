"""Greenlets and native threads side by side; most of it runs in patched processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from green import LIBRARIES, run_patched
from helpers import BOUND

from fsdf_engine import green


@pytest.mark.parametrize("library", LIBRARIES)
def test_patched_suite_passes(library):
    run_patched(library, "tests/unit/patched_green.py")


def test_no_hub_is_active_in_a_plain_process():
    assert green.active_hub() is None


def test_asking_for_the_hub_imports_no_library():
    script = (
        "import sys; from fsdf_engine import green; assert green.active_hub() is None;"
        "assert not {'gevent', 'eventlet', 'greenlet'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_library_that_is_imported_but_has_not_patched_is_not_active():
    script = (
        "import gevent.monkey, eventlet.patcher; from fsdf_engine import green;"
        "assert green.active_hub() is None"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60, capture_output=True
    )


def test_event_wakes_threads():
    event, woken = green.Event(), []
    threads = [threading.Thread(target=lambda: woken.append(event.wait(BOUND))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert not event.wait(0.001)
    event.set()
    for thread in threads:
        thread.join()
    assert woken == [True] * 4
    assert event.is_set()
    event.clear()
    assert not event.wait(0)


def test_native_thread_is_a_thread_where_nothing_is_patched():
    ran = []
    thread = green.native_thread(lambda: ran.append(green.current_thread_id()), "plain")
    thread.join(BOUND)
    assert ran == [thread.ident]
    assert isinstance(thread, threading.Thread)
    assert thread.daemon
