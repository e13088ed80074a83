"""Where log records go and how they look: formatters, consoles, files, `print`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import BOUND

from fsdf_engine.config import Config
from fsdf_engine.errors import ConfigurationError, MissingExtra
from fsdf_engine.log import JsonFormatter, RunContext, TextFormatter, install, patch_print
from fsdf_engine.log.console import ConsoleHandler
from fsdf_engine.log.figures import Durations, Figures, Pace, told
from fsdf_engine.log.files import rotating_file
from fsdf_engine.log.setup import console_if_unconfigured
from fsdf_engine.log.storms import FEW, Storms

ROOT = Path(__file__).parent.parent.parent
HERE = os.path.relpath(__file__)


ROOT_LOGGER, TREE = logging.getLogger(), logging.getLogger("fsdf")


@contextlib.contextmanager
def bare():
    """Put aside the handlers of the root logger and of `fsdf`, pytest's that is."""
    before = [(x, x.handlers[:], x.level) for x in (ROOT_LOGGER, TREE)]
    for logger, level in ((ROOT_LOGGER, logging.WARNING), (TREE, logging.NOTSET)):
        logger.handlers[:] = []
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)


def record(message="hello %s", *args, level=logging.INFO, name="shop", error=None, **extra):
    info = (type(error), error, error.__traceback__) if error else None
    made = logging.LogRecord(name, level, __file__, 7, message, args or ("you",), info, "fn")
    vars(made).update(extra)
    RunContext().filter(made)
    return made


def raised(text):
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


# ------------------------------------------------------------------ forms


def test_text_names_the_run_and_the_line():
    facts = {"queue": "orders", "task": "pack", "task_id": "t1", "attempt": 2}
    line = TextFormatter().format(record(**facts))
    assert " INFO shop " in line
    assert line.endswith(f"hello you [queue=orders task=pack task_id=t1 attempt=2] ({HERE}:7)")
    assert "[" not in TextFormatter().format(record())  # outside of runs


def test_json_is_one_line_that_holds_what_was_given():
    made = record("a\nb", level=logging.ERROR, error=raised("no"), task_id="t1", size=5)
    made.args = ()
    line = JsonFormatter().format(made)
    facts = json.loads(line)
    assert "\n" not in line
    assert (facts["message"], facts["level"], facts["logger"]) == ("a\nb", "ERROR", "shop")
    assert (facts["task_id"], facts["size"], facts["line"]) == ("t1", 5, 7)
    assert "queue" not in facts  # empty
    assert facts["exception"].endswith("ValueError: no")


@pytest.mark.parametrize("odd", ["\ud800", 1 << 80, {1: {2, 3}}, object(), float("nan")])
def test_json_takes_every_value(odd):
    assert json.loads(JsonFormatter().format(record(odd=odd)))["message"] == "hello you"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_passwords_of_urls_are_masked_also_in_tracebacks(formatter):
    url = "redis://bob:secret@host/0"
    line = formatter.format(record("at %s, and %s", url, url, error=raised(f"{url} is away")))
    assert "secret" not in line
    assert line.count("bob:***@host") >= 3


def test_console_has_colours_and_links():
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=20)
    handler = ConsoleHandler(console)
    handler.handle(record(level=logging.ERROR, error=raised("no"), task_id="t1"))
    text = out.getvalue()
    assert "\x1b[1;31mERROR" in text
    assert f"file://{__file__}#7" in text
    assert f"{HERE}:7" in text  # for terminals and editors that know no links
    assert text.count("file://") > 1  # of the traceback's frames, too


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
@bare()
def test_terminal_without_colours_gets_plain_text(monkeypatch, name):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    restore = install()
    assert type(ROOT_LOGGER.handlers[0]) is ConsoleHandler
    restore()
    monkeypatch.setenv(name, "dumb")
    restore = install()
    assert type(ROOT_LOGGER.handlers[0]) is logging.StreamHandler
    restore()


# ------------------------------------------------------------------ where they go


@bare()
def test_install_is_taken_back_and_changes_nothing_that_is_configured(tmp_path):
    root = ROOT_LOGGER
    restore = install("DEBUG", format="json", file=str(tmp_path / "new" / "log"))
    assert (len(root.handlers), root.level) == (2, logging.DEBUG)
    install("ERROR")()
    assert (len(root.handlers), root.level) == (2, logging.DEBUG)
    logging.getLogger("shop").info("hello")
    restore()
    assert (root.handlers, root.level) == ([], logging.WARNING)
    assert json.loads((tmp_path / "new" / "log").read_text())["message"] == "hello"
    with pytest.raises(ConfigurationError, match="text, json"):
        install(format="xml")


@bare()
def test_program_without_logging_sees_what_the_engine_tells(capsys):
    root = ROOT_LOGGER
    console_if_unconfigured(Config({}))
    console_if_unconfigured(Config({}))
    logging.getLogger("fsdf.queue.q").info("told once")
    logging.getLogger("shop").info("not ours")
    assert capsys.readouterr().err.count("told once") == 1
    assert root.handlers == []
    logging.basicConfig(level=logging.WARNING, stream=(mine := io.StringIO()))
    logging.getLogger("fsdf.queue.q").warning("the program's own from now on")
    logging.getLogger("fsdf.queue.q").info("and its level")
    assert capsys.readouterr().err == ""
    assert mine.getvalue().count("\n") == 1
    root.handlers[:] = []


@pytest.mark.parametrize("which", [0, 1])
@bare()
def test_program_with_a_handler_is_left_alone(which):
    handler = logging.NullHandler()
    (ROOT_LOGGER, TREE)[which].addHandler(handler)
    console_if_unconfigured(Config({}))
    assert [h for logger in (ROOT_LOGGER, TREE) for h in logger.handlers] == [handler]
    assert TREE.level == logging.NOTSET


def test_missing_library_of_log_files_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "concurrent_log_handler", None)
    with pytest.raises(MissingExtra, match=r'pip install "fsdf\[logs\]"'):
        rotating_file(str(tmp_path / "log"), 1000, 1)


def test_file_that_cannot_be_written_is_told_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="LOG_FILE"):
        rotating_file(str(tmp_path / "file" / "log"), 1000, 1)


ROTATE = """
import logging, sys
from fsdf_engine.log.files import rotating_file
handler = rotating_file(sys.argv[1], 20_000, 100)
for n in range(300):
    handler.emit(logging.makeLogRecord({"msg": f"<{sys.argv[2]} {n} {'x' * 80}>"}))
"""


def test_no_line_is_lost_or_torn_where_processes_rotate_one_file(tmp_path):
    arguments = [sys.executable, "-c", ROTATE, str(tmp_path / "log")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([*arguments, str(n)], env=env) for n in range(4)]
    assert [writer.wait(BOUND * 3) for writer in writers] == [0] * 4
    files = sorted(tmp_path.glob("log*"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert len(files) > 3
    assert sorted(lines) == sorted(f"<{w} {n} {'x' * 80}>" for w in range(4) for n in range(300))


def test_importing_the_package_imports_nothing_that_logs():
    code = "import sys, fsdf_engine; print([m for m in sys.modules if 'fsdf_engine.log' in m])"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------ figures


def test_first_of_equal_events_are_told_and_the_rest_is_counted():
    storms = Storms()
    told_whole = [storms.is_new("a", 40, lambda: "failures") for _ in range(10)]
    assert told_whole == [True] * FEW + [False] * (10 - FEW)
    assert [(s.untold, s.text) for s in storms.take()] == [(10 - FEW, "failures")]
    assert not storms.is_new("a", 40, lambda: "failures")  # the storm goes on
    assert [s.untold for s in storms.take()] == [1]
    assert storms.take() == []  # it has calmed down
    assert storms.is_new("a", 40, lambda: "failures")


def test_kinds_beyond_bound_are_counted_together():
    storms = Storms()
    for n in range(2000):
        storms.is_new(n, 40, lambda n=n: str(n))
    assert [s.text for s in storms.take()] == ["events of many kinds"]


def test_sample_of_durations_is_even():
    durations = Durations()
    assert durations.take() is None
    for n in range(100_000):
        durations.add(n / 100_000)
    p50, p95 = durations.take()
    assert p50 == pytest.approx(0.5, abs=0.08)
    assert p95 == pytest.approx(0.95, abs=0.04)
    durations.add(7.0)
    assert durations.take() == (7.0, 7.0)


def test_time_left_follows_the_whole_queue():
    pace = Pace()
    assert pace.left(1000, 60, starts=10.0) == 100.0  # our own starts, at first
    assert pace.left(400, 60, starts=1.0) == 40.0  # other workers help
    assert pace.left(1600, 60, starts=10.0) is None  # publishers are faster
    assert pace.left(0, 60, starts=10.0) is None


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        (Figures(0.5, 1), "0.5 starts/s, 1 error"),
        (
            Figures(1234.56, 2, 0.0031, 12.0, 45_000, 3, 3700.0),
            "1,234.6 starts/s, p50 3.1 ms, p95 12 s, 2 errors, 45,000 waiting, 3 delayed,"
            " 1:01:40 left at this rate",
        ),
        (Figures(1, 0, waiting=5, delayed=0), "1.0 starts/s, 0 errors, 5 waiting, not getting"),
        (Figures(1, 0, waiting=0, delayed=0), "1.0 starts/s, 0 errors, 0 waiting"),
    ],
)
def test_figures_are_a_line_for_people(figures, line):
    assert told(figures).startswith(line)


# ------------------------------------------------------------------ print


@pytest.fixture
def patched():
    restore = patch_print()
    patch_print()
    yield restore
    restore()


def test_print_tells_when_and_where(patched, capsys):
    print("a", 1, sep="-", end="!\n", flush=True)
    line = sys._getframe().f_lineno - 1
    assert capsys.readouterr().out.partition(" ")[2] == f"{HERE}:{line} a-1!\n"


def test_print_to_other_files_is_as_ever(patched, capsys):
    other = io.StringIO()
    print("a", 1, file=other)
    print("b", file=sys.stderr)
    assert (other.getvalue(), capsys.readouterr().err) == ("a 1\n", "b\n")


def test_print_is_given_back(patched, capsys):
    patched()
    print("plain")
    assert capsys.readouterr().out == "plain\n"
