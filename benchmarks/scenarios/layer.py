"""A Celery project, `benchmarks/apps/layer_app.py`, run by Celery and by fsdf under Celery's name.

The same file, settings and options of the worker. Consume is measured as in `consume`, in shorter
windows; its messages are published once by `delay` and copied for each pass.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..bench import Bench, Failure
from ..contestants import SLOTS, Contestant, fsdf_batches, hash_length
from ..process import run_client
from .consume import measure
from .publish import publish_one
from .round_trip import percentile

__all__ = ["CASES", "DELAY", "LAYER", "PRODUCTS", "WAITED", "Case", "layer"]

PRODUCTS = ("fsdf celery", "celery")
APP = "benchmarks.apps.layer_app"
WINDOW = 4.0  # seconds at most: there are many cases


@dataclass(frozen=True, slots=True)
class Case:
    """What both do, with a worker of that pool."""

    name: str
    pool: str = "threads"
    results: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    def of(self, product: str) -> Contestant:
        """The contestant that does it."""
        one = _contestant(product, self.pool)
        return replace(
            one,
            name=f"{product} {self.name}",
            environment={**one.environment, **self.environment},
            stock=f"{product}, results" if self.results else product,
        )


def _contestant(product: str, pool: str) -> Contestant:
    ours = product == "fsdf celery"
    slots = 2 if pool == "prefork" else SLOTS
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "ERROR")
    return Contestant(
        f"{product} -P {pool}",
        product.split()[0],
        APP,
        (*product.split(), "-A", APP, "worker", "-P", pool, "-c", f"{slots}", *quiet),
        "late: at least once; early: at most once",
        "adaptive up to 500" if ours else f"worker_prefetch_multiplier=64: {64 * slots}",
        {"FSDF_AS_CELERY": "1" if ours else "0", "BENCH_BACKEND": "{results}"},
        fsdf_batches if ours else hash_length("unacked"),
        slots=f"{slots} children" if pool == "prefork" else f"{slots}",
        queue="celery.flat" if ours else "celery",
    )


def _consumed() -> list[Case]:
    found = []
    settings = {"": {}, ", Django": {"DJANGO_SETTINGS_MODULE": "benchmarks.apps.django_settings"}}
    ways = (("late", False), ("early", False), ("early", True))
    for more, pool, (acks, results) in itertools.product(settings, ("threads", "prefork"), ways):
        name = f"-P {pool}, {acks}{', results' if results else ''}{more}"
        found.append(Case(name, pool, results, {"BENCH_ACKS": acks, **settings[more]}))
    for pool in ("threads", "prefork"):
        receiver = {"BENCH_RECEIVER": "1"}
        found.append(Case(f"-P {pool}, early, a receiver of task_postrun", pool, False, receiver))
    return found


CASES = tuple(_consumed())
DELAY = Case("delay")
ACKS = ("late", "early")
ACTIONS = {  # by what is waited for: what the client is told to do
    "delay().get()": "round_trip",
    "group(1000)": "times:groups",
    "chord(1000)": "times:chords",
    "chain(101)": "times:chains",
}
WAITS = {
    acks: {
        action: Case(f"{name}, {acks}", results=True, environment={"BENCH_ACKS": acks})
        for name, action in ACTIONS.items()
    }
    for acks in ACKS
}
WAITED = tuple(case for cases in WAITS.values() for case in cases.values())
LAYER = tuple(_contestant(product, pool) for pool in ("threads", "prefork") for product in PRODUCTS)


def layer(bench: Bench, run: int) -> None:
    """Measure every case once, both products one after the other."""
    shorter = replace(bench.options, window=min(WINDOW, bench.options.window))
    bench = replace(bench, options=shorter)
    for case, product in itertools.product(CASES, PRODUCTS):
        for one in bench.contestants((case.of(product),)):
            measure(bench, one, run, "layer", results=case.results)
    for product in PRODUCTS:
        for one in bench.contestants((DELAY.of(product),)):
            publish_one(bench, one, "publish", run, one.name, "layer")
    for acks, product in itertools.product(ACKS, PRODUCTS):
        _wait(bench, {action: case.of(product) for action, case in WAITS[acks].items()}, run)


def _wait(bench: Bench, asked: Mapping[str, Contestant], run: int) -> None:
    """Measure what waits for results, all with one worker."""
    wanted = bench.contestants(tuple(asked.values()))
    if not wanted:
        return
    bench.fresh()
    environment = bench.environment(wanted[0], results=True)
    window = bench.options.window
    try:
        with bench.worker(wanted[0], environment):
            for action, one in asked.items():
                if one in wanted:
                    answer = run_client(APP, action, window, environment, bench.folder)
                    _record(bench, one.name, run, answer["taken"])
    except (Failure, RuntimeError) as error:
        bench.add("layer_wait", wanted[0].name, run, failed=str(error))


def _record(bench: Bench, name: str, run: int, seconds: list[float]) -> None:
    taken = [each * 1e3 for each in seconds]
    middle, most = statistics.median(taken), percentile(taken, 0.99)
    bench.add("layer_wait", name, run, p50=middle, p99=most, count=len(taken))
