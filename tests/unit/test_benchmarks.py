"""The benchmarks: what they compare, how messages wait again, what documents say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.__main__ import _merged
from benchmarks.contestants import CONTESTANTS
from benchmarks.report import LAYER_RATIOS, RABBIT_RATIOS, RATIOS, document, ratios
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.layer import CASES, DELAY, LAYER, PRODUCTS, WAITED
from benchmarks.scenarios.local import PERSIST_QUEUES
from benchmarks.scenarios.rabbitmq import RABBIT
from benchmarks.server import RedisServer
from benchmarks.stock import Stock

ROOT = Path(__file__).parent.parent.parent
URL = "redis://127.0.0.1:1/0"


def measured(rate, ratio=10.0):
    """The rows of a layer that is `ratio` times as fast as Celery's `rate`."""
    rows = []
    for run, name in ((run, name) for run in (1, 2, 3) for name in PRODUCTS):
        times = ratio if name == PRODUCTS[0] else 1.0
        rows += [
            {"scenario": "layer", "name": f"{name} {case.name}", "run": run, "rate": rate * times}
            for case in (*CASES, DELAY)
        ]
        rows += [
            {"scenario": "layer_wait", "name": f"{name} {case.name}", "run": run, "p50": 50 / times}
            for case in WAITED
        ]
    return rows


def report(rows, *contestants, started="2026-01-01T00:00:00"):
    names = ("name", "worker", "slots", "ack", "prefetch")
    return {
        "command": "python -m benchmarks", "started": started, "minutes": 1.0, "rows": rows,
        "options": {"runs": 3, "window": 8.0},
        "machine": {
            "python": "3", "redis_server": "7", "redis_options": "", "cores": 2, "processor": "",
        },
        "versions": {"celery": "5.7.0", "funboost": "absent"},
        "contestants": [dict.fromkeys(names, name) for name in contestants],
    }  # fmt: skip


@pytest.fixture
def server(tmp_path):
    with RedisServer.running(tmp_path) as running:
        yield running


def test_every_ratio_compares_two_that_take_part():
    parts = {one.name for one in (*CONTESTANTS, *PERSIST_QUEUES)}
    known = {*SCENARIOS, "layer_wait"}
    for what, scenario, _, one, other in RATIOS:
        assert scenario in known, what
        assert {side.partition(", ")[0] for side in (one, other)} <= {*parts, "raw redis-py LPUSH"}
    rabbits = {one.name for one in RABBIT}
    for what, scenario, _, one, other in RABBIT_RATIOS:
        assert scenario in ("rabbitmq", "rabbitmq_publish"), what
        assert {
            side.removesuffix(", publish_many").removesuffix(", publish") for side in (one, other)
        } <= rabbits, what
    asked = {case.name for case in (*CASES, DELAY, *WAITED)}
    assert {pair[0] for pair in LAYER_RATIOS} == asked
    assert all(pair[3].removeprefix("fsdf ") == pair[4] for pair in LAYER_RATIOS)


@pytest.mark.parametrize("case", [*CASES, DELAY, *WAITED], ids=lambda case: case.name)
def test_both_sides_have_the_same_project_options_and_settings(case):
    ours, theirs = (case.of(product) for product in PRODUCTS)
    assert ours.worker == ("fsdf", *theirs.worker)
    assert (ours.app, ours.slots, ours.ack) == (theirs.app, theirs.slots, theirs.ack)
    mine, other = (one.variables(URL, Path("x"), results=case.results) for one in (ours, theirs))
    assert (mine.pop("FSDF_AS_CELERY"), other.pop("FSDF_AS_CELERY")) == ("1", "0")
    assert mine == other
    assert mine["BENCH_BACKEND"] != mine["BENCH_REDIS_URL"]
    assert ours.stock != theirs.stock


def test_the_project_of_both_knows_of_neither():
    source = (ROOT / "benchmarks" / "apps" / "layer_app.py").read_text()
    assert "fsdf" not in source.partition('"""\n')[2]


def test_ratios_of_a_project_stand_in_the_document_and_the_readme(tmp_path):
    told = report(measured(1000.0), *(one.name for one in LAYER))
    text = document(told)
    assert "| -P threads, late | 10,000 | 1,000 | 10.0 |" in text
    assert "| chain(101), late | 5.000 | 50.000 | 0.10 |" in text
    page = tmp_path / "README.md"
    page.write_text(f"a\n{readme.BEGIN}the former\n{readme.END}\nb\n")
    readme.update(told, page)
    block = page.read_text()
    assert block.startswith("a\n") and block.endswith("b\n") and "the former" not in block
    assert "| -P prefork, early, results | 10,000 | 1,000 | 10.0 |" in block
    assert "Django" not in block


def test_what_was_not_measured_has_no_ratio():
    rows = [row for row in measured(10.0) if row["name"] != "celery delay"]
    assert "| delay |" not in ratios(rows, LAYER_RATIOS)
    assert ratios([], LAYER_RATIOS) == ""


def test_further_runs_replace_rows_and_those_who_left():
    gone = [
        {"scenario": "consume", "name": "former", "run": 1, "rate": 1.0},
        {"scenario": "publish", "name": "former, publish_many", "run": 1, "rate": 1.0},
        {"scenario": "consume", "name": "stays", "run": 1, "rate": 1.0},
    ]
    first = report([*gone, *measured(1.0)], "former", "stays")
    first["versions"]["funboost"] = "55"
    merged = _merged([first, report(measured(7.0), "stays", "new", started="2026-02-03T")])
    names = {row["name"] for row in merged["rows"]}
    assert "stays" in names and not names & {"former", "former, publish_many"}
    assert {row["rate"] for row in merged["rows"] if row["name"] == "celery delay"} == {7.0}
    assert [one["name"] for one in merged["contestants"]] == ["stays", "new"]
    assert "2026-02-03" in merged["command"]
    assert merged["versions"]["funboost"] == "55"


def test_stored_results_are_as_they_are_documented():
    stored = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    rows = [row for path in stored for row in json.loads(path.read_text())["rows"]]
    assert rows
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    for path in stored:
        assert json.loads(path.read_text())["started"][:10] in text


def test_what_was_published_once_waits_again_oldest_first(server):
    published = []

    def publish(url, first, end):
        published.append((first, end))
        number = int(url.rpartition("/")[2])
        for n in range(first, end):
            server.database(number).lpush("q", n)

    stock = Stock(server)
    for count in (3, 2, 5):
        server.clear()
        stock.lay_out("one", "q", count, publish)
        waiting = [int(n) for n in server.client.lrange("q", 0, -1)]
        assert waiting == list(reversed(range(count)))
    assert published == [(0, 3), (3, 8)]
    with pytest.raises(RuntimeError, match="did not come to lie"):
        stock.lay_out("other", "q", 1, lambda url, first, end: None)
