"""The rules that hold the layers apart, checked on the source itself."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
ENGINE, COMPAT = ROOT / "fsdf_engine", ROOT / "fsdf_compat"
CLIENTS = {
    "amqpstorm", "celery", "confluent_kafka", "eventlet", "gevent", "greenlet", "hiredis", "kafka",
    "kombu", "nats", "pika", "psycopg", "pymongo", "pymysql", "rabbitpy", "redis",
    "sqlalchemy", "zmq",
}  # fmt: skip
# What a layer on top may use of the engine: its front door, and the contracts it may implement.
# Errors, outcomes and everything else it needs are exported there.
PORTS = {"fsdf_engine", "fsdf_engine.contracts"}


class Import(NamedTuple):
    """One imported module, by its absolute name, and the names taken from it."""

    module: str
    names: tuple[str, ...]
    place: str


@cache
def source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(source(path))


def files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def shown(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def imports(path: Path, *, run_time: bool = False) -> Iterator[Import]:
    """Yield what a file imports, in functions, too; with `run_time` not what is for types only."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    left_out = for_types(path) if run_time else set()
    for node in ast.walk(tree(path)):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, (), shown(path, node))
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield Import(module, tuple(a.name for a in node.names), shown(path, node))


def imported_modules(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the modules that a file imports, those taken by `from package import module` too."""
    for found in imports(path):
        for module in dict.fromkeys((found.module, *used(found))):
            yield module, found.place


def used(found: Import) -> list[str]:
    """Return the modules that an import uses: a package only if names of its own are taken."""
    places = {name: ROOT.joinpath(*found.module.split("."), name) for name in found.names}
    modules = [n for n, p in places.items() if p.is_dir() or p.with_suffix(".py").is_file()]
    own = [found.module] if len(modules) < len(found.names) or not found.names else []
    return own + [f"{found.module}.{name}" for name in modules]


def for_types(path: Path) -> set[ast.AST]:
    """Return what only a type checker executes."""
    return {
        inner
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }


def circles(graph: Mapping[str, set[str]]) -> set[tuple[str, ...]]:
    """Return the groups of nodes of which each leads to each."""
    reached = {}
    for start in graph:
        reached[start], ahead = set[str](), [start]
        while ahead:
            new = graph.get(ahead.pop(), set()) - reached[start]
            reached[start] |= new
            ahead += new
    return {
        tuple(sorted(other for other in graph if other in ahead and node in reached[other]))
        for node, ahead in reached.items()
        if node in ahead
    }


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every string of the code; docstrings don't count."""
    docstrings = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(node.value)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in docstrings:
                yield node.value, shown(path, node)


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """Yield what is called or named by a dotted name, such as `time.sleep`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}", shown(path, node)
    for found in imports(path):
        for name in found.names:
            yield f"{found.module}.{name}", found.place


def test_this_test_sees_imports_of_every_form():
    here = [module for module, _ in imported_modules(ENGINE / "brokers" / "memory.py")]
    assert "fsdf_engine.contracts" in here
    assert "heapq" in here


def test_core_names_no_broker_pool_or_store():
    named = re.compile(r"fsdf_engine\.(brokers|pools|stores)\b")
    found = [
        f"{place}: {text}"
        for path in files(ENGINE / "core", ENGINE / "controls")
        for text, place in [*imported_modules(path), *texts(path)]
        if named.match(text)
    ]
    assert found == []


def test_plug_ins_use_the_contracts_not_the_core():
    found = [
        f"{place}: {module}"
        for path in files(ENGINE / "brokers", ENGINE / "stores")
        for module, place in imported_modules(path)
        if module.startswith(("fsdf_engine.core", "fsdf_engine.engine", "fsdf_engine.pools"))
    ]
    assert found == []


def test_celery_layer_uses_the_public_ports_only():
    found = [
        f"{place}: {module}"
        for path in files(COMPAT)
        for module, place in [
            *imported_modules(path),
            *((text.partition(":")[0], place) for text, place in texts(path)),
        ]
        if re.match(r"fsdf_engine(\.\w+)*$", module) and module not in PORTS
    ]
    assert found == []


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == {("b", "c"), ("d",)}


def test_imports_run_one_way():
    """Also those inside functions."""
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): {
            module for found in imports(path, run_time=True) for module in used(found)
        }
        for path in files(ENGINE, COMPAT)
    }
    assert circles(graph) == set()


def test_errors_stand_on_their_own():
    found = [f"{p}: {m}" for m, p in imported_modules(ENGINE / "errors.py") if "fsdf" in m]
    assert found == []


def test_engine_does_not_know_the_layer_on_top():
    found = [
        f"{place}: {module}"
        for path in files(ENGINE)
        if path.parent.name != "cli"
        for module, place in imported_modules(path)
        if module.partition(".")[0] == "fsdf_compat"
    ]
    assert found == []


def test_client_libraries_stay_in_their_own_files():
    homes = {"brokers", "pools", "stores"}
    found = [
        f"{place}: {module}"
        for path in files(ENGINE)
        if path.relative_to(ROOT).parts[1] not in homes and path != ENGINE / "green.py"
        for module, place in imported_modules(path)
        if module.partition(".")[0] in CLIENTS
    ]
    assert found == []


def test_celery_layer_has_its_clients_in_the_backends_and_never_the_original():
    """kombu is part of Celery's interface; a pool's library is imported by whoever starts it."""
    homes = {
        "redis": {"backends", "_backends"}, "sqlalchemy": {"backends"}, "celery": set(),
        "gevent": {"__init__.py", "concurrency", "_backends"},
        "eventlet": {"__init__.py", "concurrency", "_backends"},
    }  # fmt: skip
    found = [
        f"{place}: {module}"
        for path in files(COMPAT)
        for module, place in imported_modules(path)
        if (client := module.partition(".")[0]) in CLIENTS - {"kombu"}
        if path.relative_to(COMPAT).parts[0] not in homes.get(client, set())
    ]
    assert found == []


def test_nothing_sleeps():
    found = [p for path in files(ENGINE, COMPAT) for name, p in calls(path) if name == "time.sleep"]
    assert found == []


def test_process_is_ended_hard_in_three_places():
    """At the worker command's second signal; where a process ends that was forked in the middle of
    what its parent does: there is nothing else that it could come back to; and where the parents
    of a daemon end, as its child has all that they had.
    """
    found = [p for path in files(ENGINE, COMPAT) for name, p in calls(path) if name == "os._exit"]
    places = [place.partition(":")[0] for place in found]
    assert places == [
        "fsdf_compat/_platforms/daemon.py",
        "fsdf_engine/foreground.py",
        "fsdf_engine/zygote/process.py",
    ], found


def test_signals_have_one_owner():
    setters = {"signal.signal", "signal.set_wakeup_fd", "signal.pthread_sigmask"}
    found = {p for path in files(ENGINE, COMPAT) for name, p in calls(path) if name in setters}
    owners = {"fsdf_engine/core/signals.py", "fsdf_compat/platforms.py"}  # that hands them to users
    assert {place.partition(":")[0] for place in found} <= owners


def test_nothing_received_can_be_unpickled():
    """But by the serializer that an application has to accept by name; beat's file is its own.

    `marshal.dumps` reads nothing.
    """
    allowed = {COMPAT / "beat.py", COMPAT / "utils" / "serialization.py"}
    found = [
        place
        for path in files(ENGINE, COMPAT)
        if path not in allowed and "_beat" not in path.parts
        for module, names, place in imports(path)
        if (module, names) != ("marshal", ("dumps",))
        and module.partition(".")[0] in {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    ]
    assert found == []


@pytest.mark.parametrize(
    "path", files(ENGINE, COMPAT, ROOT / "benchmarks"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_file_is_short_and_so_are_its_functions(path):
    assert source(path).count("\n") < 400
    long = [
        f"{shown(path, node)} {node.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno >= 40
    ]
    assert long == []


def test_what_every_worker_runs_stays_small():
    """Lines of code: what must be there anyway (docstrings, comments, blank lines) is not held
    against a file's author. What stands beside the core is held by the length of its files.
    """
    core = {"codec.py", "contracts.py", "core", "engine.py", "execution.py", "groups.py",
            "marks.py", "message.py", "messaging.py", "pools", "records.py", "result_stores.py",
            "task.py", "wire.py"}  # fmt: skip
    lines = {
        path.relative_to(ENGINE): code_lines(path)
        for path in files(ENGINE)
        if path.relative_to(ENGINE).parts[0] in core
    }
    largest = sorted(lines.items(), key=lambda item: -item[1])[:12]
    assert sum(lines.values()) < 6500, largest


def code_lines(path: Path) -> int:
    """Count the lines that hold code."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source(path)).readline):
        if token.type not in {*skipped, tokenize.ENDMARKER}:
            code.update(range(token.start[0], token.end[0] + 1))
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree(path)):
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            code -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(code)


def test_every_public_name_is_documented():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [
        f"{shown(path, node)} {node.name}"
        for path in files(ENGINE, COMPAT)
        for node in tree(path).body
        if isinstance(node, kinds) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    found += [str(p.relative_to(ROOT)) for p in files(ENGINE, COMPAT) if not documented(p)]
    assert found == []


def documented(path: Path) -> bool:
    return not source(path).strip() or bool(ast.get_docstring(tree(path)))


def test_no_article_precedes_a_name_that_is_filled_in():
    """It would be wrong before half of the names: "a AsyncioPool"."""
    found = [
        shown(path, node)
        for path in files(ENGINE, COMPAT)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.JoinedStr)
        for before, after in pairwise(node.values)
        if isinstance(after, ast.FormattedValue) and isinstance(before, ast.Constant)
        if re.search(r"\b[Aa]n? ['\"`]?\Z", str(before.value))
    ]
    assert found == []
