"""Run tests in a process that gevent or eventlet has patched before it imported anything else.

A suite for both libraries is a file named `patched_*.py`, which plain pytest does not collect; it
asks `active_hub()` where it must know. A test of the plain run starts it:

    @pytest.mark.parametrize("library", LIBRARIES)
    def test_patched_suite_passes(library):
        run_patched(library, "tests/conformance/patched_pools.py")

By hand: `python tests/green.py gevent tests/conformance/patched_pools.py -k interrupt`.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

LIBRARIES = ["gevent", "eventlet"]
ROOT = Path(__file__).parent.parent
STRICT = ["-W", "error::pytest.PytestUnraisableExceptionWarning"]
LIMIT = 300.0  # seconds; only a hanging suite reaches it


def run_patched(library: str, *arguments: str, limit: float = LIMIT) -> None:
    """Run pytest with these arguments in a patched process; its failures are ours."""
    command = [
        sys.executable,
        __file__,
        library,
        "-q",
        "-p",
        "no:cacheprovider",
        *STRICT,
        *arguments,
    ]
    try:
        run = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"no end within {limit} s\n{error.output}") from None
    assert run.returncode == 0, f"under {library}:\n{run.stdout[-20_000:]}"
    assert " passed" in run.stdout, run.stdout


def patch(library: str) -> None:
    """Patch this process."""
    if library == "gevent":
        from gevent import monkey

        monkey.patch_all()
    else:
        warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")
        import eventlet

        eventlet.monkey_patch()


def forgive_tidying_up() -> object:
    """Return a plug-in that keeps from the tests what greenlet says of its own tidying up.

    It ends a greenlet that another thread gave up wherever the next switch happens to be. Where
    that is a function without builtins (a named tuple's constructor), whatever the end has to
    import fails there, and greenlet reports it of no object. A report that names one still counts.
    """
    import pytest

    class Forgiving:
        @pytest.hookimpl(trylast=True)
        def pytest_configure(self) -> None:
            told = sys.unraisablehook

            def hook(report: sys.UnraisableHookArgs) -> None:
                error = report.exc_value
                tidying = isinstance(error, KeyError) and error.args == ("__import__",)
                if not (tidying and report.object is None):
                    told(report)

            sys.unraisablehook = hook

    return Forgiving()


if __name__ == "__main__":
    patch(sys.argv[1])
    import pytest

    sys.path.insert(0, str(ROOT))
    sys.exit(pytest.main(sys.argv[2:], plugins=[forgive_tidying_up()]))
