"""`import celery` means fsdf_compat: from the path, a wheel and an editable install."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BOUND = 120.0
ACTIVE = "import fsdf_compat; fsdf_compat.activate()\n"
VARIABLES = ("FSDF_AS_CELERY", "PYTHONPATH", "PYTEST_ADDOPTS")

Run = Callable[..., subprocess.CompletedProcess]


def environ(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    return kept | changes


def python(*arguments: str, cwd: Path, executable: str = sys.executable, **changes: str) -> str:
    """Run a Python that finds fsdf by its path; return what it has written."""
    done = subprocess.run(
        [executable, *arguments],
        cwd=cwd,
        env=environ(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


def said(tmp_path: Path, code: str, **changes: str) -> str:
    """Return what the code prints in a process whose path has the checkout."""
    changes.setdefault("PYTHONPATH", str(ROOT))
    return python("-c", textwrap.dedent(code), cwd=tmp_path, **changes)


def test_both_names_are_one_module_that_is_called_celery(tmp_path):
    code = f"""
    {ACTIVE}
    import celery.utils.time, fsdf_compat.utils.time, fsdf_compat.exceptions
    assert celery is fsdf_compat and celery.utils.time is fsdf_compat.utils.time
    assert fsdf_compat.utils.time.__spec__.name == "celery.utils.time"
    from celery.exceptions import Retry
    from fsdf_compat import Celery
    import pickle
    assert Retry is fsdf_compat.exceptions.Retry and b"celery.exceptions" in pickle.dumps(Retry)
    print(Retry, Celery, celery.__name__, celery.__spec__.name, fsdf_compat.activate.__module__)
    """
    expected = "<class 'celery.exceptions.Retry'> <class 'celery.app.base.Celery'> celery celery"
    assert said(tmp_path, code) == f"{expected} celery"


def test_every_module_loads_under_both_names(tmp_path):
    code = f"""
    {ACTIVE}
    import importlib, sys
    names = [
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for root in [__import__("pathlib").Path({str(ROOT / "fsdf_compat")!r})]
        for path in sorted(root.rglob("*.py"))
        if path.parent.name != "_start" and path.name != "__main__.py" and path.parent != root
    ]
    names.sort(key=lambda name: (name.startswith("_") or "._" in name, name))  # public ones first
    for name in names:
        try:
            one = importlib.import_module("celery." + name)
        except ModuleNotFoundError as error:  # of a library that is not installed
            assert not error.name.startswith(("celery", "fsdf")), error
            continue
        other = importlib.import_module("fsdf_compat." + name)
        assert one is other and one.__name__ == "celery." + name == one.__spec__.name, name
    print(len(names) > 50)
    """
    assert said(tmp_path, code) == "True"


def test_loaders_give_code_so_that_modules_can_be_run(tmp_path):
    code = """
    import importlib.util
    for name in ("celery.__main__", "fsdf_compat.__main__", "celery.utils.text"):
        spec = importlib.util.find_spec(name)
        assert spec.loader.get_code(name).co_filename == spec.origin
    print("done")
    """
    assert said(tmp_path, ACTIVE + textwrap.dedent(code)) == "done"
    start = str(ROOT / "fsdf_compat" / "_start")
    path = os.pathsep.join([start, str(ROOT)])
    for name in ("celery", "fsdf_compat"):
        version = python("-m", name, "--version", cwd=tmp_path, FSDF_AS_CELERY="1", PYTHONPATH=path)
        assert version == "5.7.0 (fsdf)"


def test_a_second_call_does_nothing(tmp_path):
    assert said(tmp_path, f"{ACTIVE}{ACTIVE}import celery; print(celery.__name__)") == "celery"


@pytest.mark.parametrize("first", ["fsdf_compat.states", "celery"])
def test_activating_after_an_import_says_what_to_do(tmp_path, first):
    (tmp_path / "celery.py").write_text("")
    code = f"""
    import {first}, fsdf_compat
    try:
        fsdf_compat.activate()
    except RuntimeError as error:
        print(error)
    """
    told = said(tmp_path, code)
    assert told.startswith(f"{first} is imported already: ")
    assert "FSDF_AS_CELERY=1" in told


def test_a_missing_name_is_named(tmp_path):
    code = f"""
    {ACTIVE}
    import celery, importlib
    for ask in (lambda: celery.chian, lambda: importlib.import_module("celery.utils.chian")):
        try:
            ask()
        except (AttributeError, ModuleNotFoundError) as error:
            print(error)
    """
    assert said(tmp_path, code).splitlines() == [
        "module 'celery' has no attribute 'chian'",
        "No module named 'celery.utils.chian'",
    ]


def test_modules_are_attributes_as_are_old_names(tmp_path):
    code = f"""
    {ACTIVE}
    import celery
    app = celery.Celery("x", broker="memory://")
    app.task(name="add")(lambda x, y: x + y)
    from celery.registry import tasks
    assert celery.schedules.crontab and "add" in tasks and "subtask" in dir(celery)
    print(celery.states.SUCCESS)
    """
    assert said(tmp_path, code) == "SUCCESS"


SPAWN = """
    import multiprocessing, sys

    def show():
        import celery
        print(celery.__file__)

    if __name__ == "__main__":
        {first}
        for method in ("spawn", "fork"):
            process = multiprocessing.get_context(method).Process(target=show)
            process.start()
            process.join()
"""


def test_children_have_it_too(tmp_path):
    (tmp_path / "spawn.py").write_text(textwrap.dedent(SPAWN.format(first=ACTIVE.strip())))
    lines = python("spawn.py", cwd=tmp_path, PYTHONPATH=str(ROOT)).splitlines()
    assert lines == [str(ROOT / "fsdf_compat" / "__init__.py")] * 2


def test_command_runs_a_program_for_which_celery_is_fsdf(tmp_path):
    (tmp_path / "app.py").write_text("import sys, celery; print(celery.__file__, sys.argv[1:])")
    run = ["-m", "fsdf_engine.cli", "run", "--", sys.executable, "app.py", "--version"]
    told = python(*run, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert told == f"{ROOT / 'fsdf_compat' / '__init__.py'} ['--version']"
    celery = ["-m", "fsdf_engine.cli", "celery", "--version"]
    assert python(*celery, cwd=tmp_path, PYTHONPATH=str(ROOT)) == "5.7.0 (fsdf)"


@pytest.mark.parametrize("command", [[], ["no-such-program"]])
def test_command_without_a_program_says_so(tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-m", "fsdf_engine.cli", "run", "--", *command],
        cwd=tmp_path,
        env=environ(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fsdf: no-such-program: " if command else "fsdf: run -- needs")


def test_a_hidden_sitecustomize_runs_all_the_same(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.own = True")
    start = str(ROOT / "fsdf_compat" / "_start")
    path = os.pathsep.join([start, str(tmp_path), str(ROOT)])
    code = "import sys, celery; print(sys.own, celery.__name__)"
    assert said(tmp_path, code, PYTHONPATH=path, FSDF_AS_CELERY="1") == "True celery"
    code = "import sys; print(sys.own, 'fsdf_compat' in sys.modules)"
    assert said(tmp_path, code, PYTHONPATH=path, FSDF_AS_CELERY="0") == "True False"


def test_names_of_celery_mean_this_package_without_the_alias(tmp_path):
    code = """
    from fsdf_compat.utils.imports import symbol_by_name
    print(symbol_by_name("celery.utils.time:rate").__module__, symbol_by_name("celery.states"))
    """
    told = said(tmp_path, code)
    assert told.startswith("fsdf_compat.utils.time <module 'fsdf_compat.states'")


def borrowed(folder: Path, version: str | None) -> str:
    """Install a `celery` of this version that has one module; return the path."""
    if version:
        metadata = folder / f"celery-{version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: celery\nVersion: {version}\n")
        module = folder / "celery" / "backends" / "mongodb.py"
        module.parent.mkdir(parents=True)
        module.write_text(
            "from celery.backends.base import BaseBackend\nclass MongoBackend: pass\n"
        )
    return os.pathsep.join([str(folder), str(ROOT)])


BORROW = f"""
    {ACTIVE}
    try:
        from celery.backends.mongodb import MongoBackend, BaseBackend
    except ModuleNotFoundError as error:
        print(error, error.name)
    else:
        print(MongoBackend, BaseBackend.__module__)
"""


def test_whole_modules_are_taken_from_an_installed_celery(tmp_path):
    told = said(tmp_path, BORROW, PYTHONPATH=borrowed(tmp_path, "5.7.3"))
    assert told == "<class 'celery.backends.mongodb.MongoBackend'> celery.backends.base"


@pytest.mark.parametrize("version", [None, "5.6.3"])
def test_without_that_celery_the_error_names_what_to_install(tmp_path, version):
    told = said(tmp_path, BORROW, PYTHONPATH=borrowed(tmp_path, version))
    assert told.startswith("celery.backends.mongodb is taken from Celery itself")
    assert told.endswith('pip install "celery==5.7.*" celery.backends.mongodb')
    assert ("5.6.3 is installed" in told) == bool(version)


def test_import_of_what_is_not_here_says_why(tmp_path):
    code = f"""
    {ACTIVE}
    for name in ("celery.events.state", "celery.security", "celery.worker.loops"):
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            print(error.name, error)
    """
    events, security, loops = said(tmp_path, code).splitlines()
    assert events.startswith("celery.events celery.events is not here: there are no events")
    assert security.startswith("celery.security celery.security is not here: there are no signed")
    assert loops.startswith("celery.worker.loops celery.worker.loops is not here: it is a part")


def test_pool_that_is_not_installed_names_what_to_install(tmp_path):
    code = f"""
    {ACTIVE}
    import celery, sys
    sys.modules["gevent"] = None  # as if it were not installed
    try:
        celery.maybe_patch_concurrency(["celery", "worker", "-P", "gevent"])
    except ModuleNotFoundError as error:
        print(error)
    """
    told = said(tmp_path, code)
    assert told == 'the pool gevent is not installed: pip install "fsdf[gevent]"'


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory) -> str:
    """Return a Python of an environment in which pip has installed fsdf."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder / "venv", with_pip=False)
    made = str(folder / "venv" / "bin" / "python")
    site = Path(python("-c", "import sysconfig; print(sysconfig.get_path('purelib'))",
                       cwd=folder, executable=made))  # fmt: skip
    ours = [place for place in sys.path if Path(place).name == "site-packages"]
    (site / "dependencies.pth").write_text("\n".join(ours))
    what = ["-e", str(ROOT)] if request.param == "editable" else [str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", made, "install", "-q", "--no-deps",
         "--ignore-installed", *what],
        env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        if os.environ.get("FSDF_REQUIRE_SERVICES"):
            pytest.fail(f"pip: {done.stderr}")
        pytest.skip(f"pip cannot build the package here: {done.stderr.strip()[-200:]}")
    return made


def test_variable_is_enough_where_it_is_installed(tmp_path, installed):
    code = "import celery, fsdf_compat; print(celery is fsdf_compat)"
    told = python("-c", code, cwd=tmp_path, executable=installed, FSDF_AS_CELERY="1")
    assert told == "True"
    console = tmp_path / "celery-command"
    console.write_text("from celery.__main__ import main\nmain()\n")
    for command in (["-m", "celery"], [str(console)]):
        told = python(*command, "--version", cwd=tmp_path, executable=installed, FSDF_AS_CELERY="1")
        assert told == "5.7.0 (fsdf)"


def test_nothing_is_imported_where_it_is_not_asked_for(tmp_path, installed):
    code = "import sys; print([m for m in sys.modules if m.startswith(('fsdf', 'celery'))])"
    assert python("-c", code, cwd=tmp_path, executable=installed) == "[]"


def test_plugins_of_pytest_have_it_before_any_conftest(tmp_path, installed):
    (tmp_path / "conftest.py").write_text(
        "import celery, fsdf_compat\nassert celery is fsdf_compat\n"
    )
    (tmp_path / "test_it.py").write_text(
        "def test_add(celery_app):\n    assert type(celery_app).__module__.startswith('celery.')\n"
    )
    run = ["-m", "pytest", "-q", "-p", "celery.contrib.pytest", "-p", "no:cacheprovider"]
    told = python(*run, cwd=tmp_path, executable=installed, FSDF_AS_CELERY="1")
    assert "1 passed" in told


def test_children_need_no_path_where_it_is_installed(tmp_path, installed):
    (tmp_path / "spawn.py").write_text(
        textwrap.dedent(
            SPAWN.format(
                first="""
        import fsdf_compat, os; fsdf_compat.activate(); assert "PYTHONPATH" not in os.environ
    """.strip()
            )
        )
    )
    lines = python("spawn.py", cwd=tmp_path, executable=installed).splitlines()
    assert len(lines) == 2
    assert all(line.endswith("fsdf_compat/__init__.py") for line in lines)
