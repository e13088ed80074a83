"""The documentation says what is so: tables, option names, defaults, examples."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from helpers import until

from fsdf_engine import task_deco
from fsdf_engine.cli import parser
from fsdf_engine.config import KEYS
from fsdf_engine.contracts import Broker
from fsdf_engine.historic.options import HISTORIC, NOT_YET
from fsdf_engine.options import TaskOptions
from fsdf_engine.registry import BrokerEnum, ConcurrentModeEnum, brokers, pools

ROOT = Path(__file__).parent.parent.parent
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
TOUR, CONFIGURATION = ROOT / "docs" / "tour.md", ROOT / "docs" / "configuration.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("migration_guide/*.md")])
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
BOUND = 60.0  # seconds; only a failing test reaches it


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path) -> list[str]:
    """Return the Python examples of a page, indented ones of lists without their indentation."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text(path), re.DOTALL | re.MULTILINE)
    plain = [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]
    return [code for code in plain if not code.startswith(">>>")]


def rows(path: Path) -> Iterator[list[str]]:
    """Yield the cells of every row of every table of a page."""
    for line in text(path).splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FSDF_")}
    path = os.pathsep.join([str(ROOT), kept.get("PYTHONPATH", "")])
    return {**kept, "FSDF_SQLITE_PATH": str(folder / "queue.sqlite"), "PYTHONPATH": path}


def test_table_of_brokers_is_current():
    script = [sys.executable, str(ROOT / "scripts" / "matrix"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=BOUND)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_option_is_in_the_guide_with_its_default():
    told = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(GUIDE) if len(cells) == 3}
    for field in dataclasses.fields(TaskOptions):
        assert field.name in told, f"{field.name} is missing in {GUIDE.name}"
        if isinstance(field.default, (bool, int, float, str)) and field.default != "":
            plain = f"{field.default:g}" if type(field.default) is float else str(field.default)
            assert told[field.name].strip('"') == plain, field.name


def test_guide_names_no_option_that_is_not_there():
    known = {field.name for field in dataclasses.fields(TaskOptions)}
    table = text(GUIDE).partition("<!-- options -->")[2].partition("<!-- /options -->")[0]
    named = re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    assert sorted(named) == sorted(known)


def test_hovering_the_decorator_explains_every_option():
    """In its docstring with the default, and at each key of the options."""
    doc, names = task_deco.__doc__, [field.name for field in dataclasses.fields(TaskOptions)]
    assert [name for name in names if not re.search(rf"`{name}\b", doc)] == []
    for name, default in re.findall(r"`(\w+)=([^`]+)`", doc):
        field = next(field for field in dataclasses.fields(TaskOptions) if field.name == name)
        if field.default is not None:
            given = eval(default, {"Exception": (Exception,)})
            assert given == field.default, name
    [options] = [
        node
        for node in ast.parse(text(ROOT / "fsdf_engine" / "options.py")).body
        if isinstance(node, ast.ClassDef) and node.name == "Options"
    ]
    keys = [node.target.id for node in options.body if isinstance(node, ast.AnnAssign)]
    assert sorted(keys) == sorted(names)
    for key, said in zip(options.body[1::2], options.body[2::2]):
        assert isinstance(key, ast.AnnAssign)
        assert isinstance(said, ast.Expr), f"{ast.unparse(key)} has no docstring"


def test_guide_names_what_is_not_there_yet():
    for name in [*NOT_YET, *HISTORIC]:
        assert f"`{name}`" in text(GUIDE), name


def test_every_configuration_key_has_its_row():
    keys = "".join(cells[0] for cells in rows(CONFIGURATION))
    assert [name for name in KEYS if f"`{name}`" not in keys] == []


def test_every_mode_is_in_the_readme():
    for name in pools.names():
        assert any(f"`{name}`" in cells[2] for cells in rows(README) if len(cells) == 5), name


def test_members_named_in_the_pages_exist():
    enums = {"BrokerEnum": BrokerEnum, "ConcurrentModeEnum": ConcurrentModeEnum}
    for page in PAGES:
        for enum, member in re.findall(r"\b(BrokerEnum|ConcurrentModeEnum)\.(\w+)", text(page)):
            assert member in enums[enum].__members__, f"{page.name}: {enum}.{member}"


def test_brokers_of_the_table_are_described():
    described = text(ROOT / "docs" / "brokers.md")
    assert [n for n in brokers.names() if f"`{n}`" not in described] == []


@EACH_PAGE
def test_python_examples_compile(page):
    for number, code in enumerate(blocks(page)):
        compile(code, f"{page.name}, example {number}", "exec")


@EACH_PAGE
def test_names_imported_in_examples_exist(page):
    for code in blocks(page):
        for module, names in re.findall(r"^from (fsdf\w[\w.]*) import ([\w, ]+)", code, re.M):
            there = importlib.import_module(module)
            assert [name for name in names.strip().split(", ") if not hasattr(there, name)] == []


@EACH_PAGE
def test_links_to_files_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text(page)) if "://" not in link]
    targets = [link.partition("#")[0] for link in links if not link.startswith("#")]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_tests_named_in_the_pages_exist():
    sources = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("fsdf_engine/testing/*.py")]
    code = "\n".join(text(path) for path in sources)
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", text(page))}
    assert [name for name in sorted(named) if f"def {name}(" not in code] == []


def test_files_named_in_the_pages_exist():
    pattern = r"`((?:tests|fsdf_engine|fsdf_compat|scripts|examples|benchmarks)/[\w/.]*\w)`"
    named = {(page, name) for page in PAGES for name in re.findall(pattern, text(page))}
    invented = "product"  # how CONTRIBUTING.md calls a broker that a reader may write
    missing = [(p.name, name) for p, name in sorted(named) if not (ROOT / name).exists()]
    assert [found for found in missing if invented not in found[1]] == []


def test_commands_shown_in_the_pages_are_understood():
    shown = [line for page in PAGES for line in re.findall(r"^ {4}(fsdf .+)$", text(page), re.M)]
    commands = [c for line in shown for c in re.split(r" {2,}", line)[0].split("; ")]
    assert len(commands) > 10
    for command in commands:
        arguments = shlex.split(command.replace("[ID...]", "ID"))[1:]
        if arguments[0] != "celery":  # its options are its own
            assert parser().parse_args(arguments).run, command


def test_log_messages_named_in_the_pages_exist():
    """Parts that vary are written as `...`, as N or as a number."""
    trees = [ast.parse(text(path)) for path in (ROOT / "fsdf_engine").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    written = "\n".join(node.value for node in nodes if isinstance(node.value, str))
    table = text(ROOT / "docs" / "operations.md").partition("| message | means |")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", table.partition("\n\n")[0], re.M)
    assert len(messages) > 4
    for message in messages:
        for part in re.split(r"\.\.\.|\bN\b|\d+", message):
            assert part.strip() in written, message


def foreign(language: str) -> str:
    """Return how the page on brokers tells other programs to push."""
    page = text(ROOT / "docs" / "brokers.md")
    return page.partition(f"```{language}\n")[2].partition("```")[0]


def bodies(broker: Broker) -> list[object]:
    subscription = broker.subscribe("add", lease=15.0)
    found = [json.loads(delivery.body) for delivery in subscription.fetch(10, 1 << 20)]
    subscription.close()
    return found


def test_sql_of_the_page_pushes_a_message(tmp_path):
    path = str(tmp_path / "queue.sqlite")
    broker = brokers.load("sqlite")(path)
    broker.check()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute(foreign("sql"))
    assert bodies(broker) == [{"x": 1, "y": 2}]
    broker.close()


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("redis", "LPUSH"),
        ("redis_ack", "LPUSH"),
        ("redis_brpoplpush", "LPUSH"),
        ("redis_stream", "XADD"),
    ],
)
def test_redis_commands_of_the_page_push_a_message(redis_url, name, command):
    lines = [shlex.split(line, comments=True)[2:] for line in foreign("console").splitlines()]
    [arguments] = [line for line in lines if line[0] == command]
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(*arguments)
    broker = brokers.load(name)(redis_url)
    assert bodies(broker) == [{"x": 1, "y": 2}]
    broker.close()


def test_readme_shows_the_first_example_as_it_is():
    assert blocks(README)[0] == text(ROOT / "examples" / "first.py").split('"""', 2)[2].lstrip("\n")


def test_first_example_runs(tmp_path):
    script = [sys.executable, "-u", str(ROOT / "examples" / "first.py")]
    out = subprocess.PIPE
    with subprocess.Popen(
        script, stdout=out, text=True, cwd=tmp_path, env=environment(tmp_path)
    ) as first:
        try:
            lines = [first.stdout.readline() for _ in range(3)]
        finally:
            first.kill()
    assert [re.search(r"(\d+) \+ (\d+)", line).groups() for line in lines] == [
        ("0", "0"), ("1", "2"), ("2", "4"),
    ]  # fmt: skip


def test_producer_and_worker_of_the_readme_work_together(tmp_path):
    """Two programs, each a process of its own."""
    tasks, producer = blocks(README)[1:3]
    (tmp_path / "my_tasks.py").write_text(tasks, encoding="utf-8")
    (tmp_path / "producer.py").write_text(producer, encoding="utf-8")
    surrounding = {"cwd": tmp_path, "env": environment(tmp_path)}
    subprocess.run([sys.executable, "producer.py"], check=True, timeout=BOUND, **surrounding)
    broker = brokers.load("sqlite")(str(tmp_path / "queue.sqlite"))
    assert broker.size("resize") == (1001, 0, 0, 0)
    command = [sys.executable, "-m", "fsdf_engine.cli", "run", "my_tasks.py"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **surrounding) as worker:
        try:
            until(lambda: broker.size("resize") == (0, 0, 0, 0))
        finally:
            worker.terminate()
    broker.close()


def test_examples_of_the_tour_run_to_their_end(tmp_path):
    """What stands under `if __name__ == "__main__"` is left out; it would not end."""
    program = [
        "import builtins, os",  # threads may print at the same time, which buffers do not bear
        "builtins.print = lambda *a: os.write(1, f\"{' '.join(map(str, a))}\\n\".encode())",
    ]
    program += [
        f"exec(compile({c!r}, 'tour', 'exec'), {{'__name__': 'tour'}})" for c in blocks(TOUR)
    ]
    path = tmp_path / "tour.py"
    path.write_text("\n".join(program), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment(tmp_path),
        capture_output=True, text=True, timeout=BOUND,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for expected in [
        "resize now.png 800", "resize a.png 400", "resize b.png 800", "0.25\n",
        "failed builtins.ZeroDivisionError", "nobody lives there", "paid 17", "sent 17 post",
    ]:  # fmt: skip
        assert expected in done.stdout
