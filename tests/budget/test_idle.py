"""An idle worker asks its server for next to nothing and burns no CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_engine import task_deco

BROKERS = [
    "sqlite",
    "redis",
    "redis_ack",
    "redis_stream",
    "redis_brpoplpush",
    "rabbitmq_pika",
    "rabbitmq_amqpstorm",
]
WATCHED = 10.5  # seconds; the longest wait of a consumer is 5
WORKER = """
import sys
from fsdf_engine import task_deco

@task_deco(f"idle_{sys.argv[1]}", broker_kind=sys.argv[1], broker_url=sys.argv[2])
def work(n):
    print(n, flush=True)

work.consume()
"""


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A worker process of one broker, on a server of its own."""

    def __init__(self, broker, own_redis, rabbitmq_url):
        self.broker = broker
        self.server = own_redis() if broker.startswith("redis") else None
        url = self.server.url if self.server else ""
        if broker.startswith("rabbitmq"):  # of which no commands can be counted
            url = rabbitmq_url
        self.task = task_deco(f"idle_{broker}", broker_kind=broker, broker_url=url)(lambda n: None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, broker, url],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )

    def runs(self, n):
        self.task.push(n)
        return self.process.stdout.readline() == f"{n}\n"

    def watch(self):
        """Begin to count: CPU seconds of the worker, commands that its server gets."""
        self.cpu = cpu_seconds(self.process.pid)
        if self.server:
            self.monitor = socket.create_connection(("127.0.0.1", self.server.port))
            self.monitor.sendall(b"MONITOR\r\n")
            assert self.monitor.recv(5) == b"+OK\r\n"

    def spent(self):
        """Return CPU seconds and commands since; what scripts call within the server is theirs."""
        commands = b""
        if self.server:
            with self.monitor:
                self.monitor.setblocking(False)
                while chunk := self._received():
                    commands += chunk
        lines = [line for line in commands.splitlines() if b" lua] " not in line]
        return cpu_seconds(self.process.pid) - self.cpu, len(lines)

    def _received(self):
        try:
            return self.monitor.recv(1 << 16)
        except BlockingIOError:
            return b""

    def memory(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def workers(own_redis, rabbitmq_url):
    started = []
    for broker in BROKERS:
        started.append(Worker(broker, own_redis, rabbitmq_url))
    yield started
    for worker in started:
        worker.process.kill()
        worker.process.wait()
        worker.process.stdout.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_idle_workers_cost_nothing_and_wake_at_once(workers):
    for worker in workers:
        assert worker.runs(1)
        until(lambda worker=worker: worker.task.size()[:2] == (0, 0))
    for worker in workers:
        worker.watch()
    began = time.monotonic()
    until(lambda: time.monotonic() - began > WATCHED, WATCHED + BOUND)
    seconds = time.monotonic() - began
    for worker in workers:
        cpu, commands = worker.spent()
        assert commands / seconds <= 5, worker.broker
        assert cpu <= 0.01 * seconds + 0.011, worker.broker  # a clock tick is 10 ms
        assert worker.runs(2)
        assert worker.memory() <= 45 << 20, worker.broker
