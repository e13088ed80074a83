"""Fixtures for the tests of applications; `celery_*` ones without a body are to be overridden."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

NO_WORKER = os.environ.get("NO_WORKER")


def pytest_configure(config: Any) -> None:
    """Make the marker known."""
    marker = "celery(**overrides): override celery configuration for a test case"
    config.addinivalue_line("markers", marker)


def _testing(name: str) -> Any:
    """Return a module that imports the whole package: not before a test wants it."""
    return importlib.import_module(f".testing.{name}", __package__)


@contextmanager
def _create_app(
    enable_logging: bool = False,
    use_trap: bool = False,
    parameters: Mapping[str, Any] | None = None,
    **config: Any,
) -> Iterator[Any]:
    testing = _testing("app")
    app = testing.TestApp(
        set_as_current=False, enable_logging=enable_logging, config=config, **(parameters or {})
    )
    with testing.setup_default_app(app, use_trap=use_trap):
        yield app


def _config(request: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for a test, which its marker may change."""
    marker = request.node.get_closest_marker("celery")
    return dict(config, **marker.kwargs if marker else {})


@contextmanager
def _worker(app: Any, includes: Any, pool: Any, parameters: Any, tasks: Any = ()) -> Iterator[Any]:
    for module in includes:
        app.loader.import_task_module(module)
    for task in tasks:
        app.register_task(task)
    with _testing("worker").start_worker(app, pool=pool, **parameters) as worker:
        yield worker


@pytest.fixture(scope="session")
def use_celery_app_trap() -> bool:
    """Whether the use of the current or the default app is an error."""
    return False


@pytest.fixture(scope="session")
def celery_session_app(
    request: Any,
    celery_config: Any,
    celery_parameters: Any,
    celery_enable_logging: Any,
    use_celery_app_trap: Any,
) -> Iterator[Any]:
    """An app for all tests; it is the current one."""
    with _create_app(
        enable_logging=celery_enable_logging,
        use_trap=use_celery_app_trap,
        parameters=celery_parameters,
        **_config(request, celery_config),
    ) as app:
        if not use_celery_app_trap:
            app.set_default()
            app.set_current()
        yield app


@pytest.fixture(scope="session")
def celery_session_worker(
    request: Any,
    celery_session_app: Any,
    celery_includes: Any,
    celery_class_tasks: Any,
    celery_worker_pool: Any,
    celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker for all tests, in a thread."""
    if NO_WORKER:
        return
    with _worker(
        celery_session_app,
        celery_includes,
        celery_worker_pool,
        celery_worker_parameters,
        celery_class_tasks,
    ) as worker:
        yield worker


@pytest.fixture(scope="session")
def celery_enable_logging() -> bool:
    """Whether apps set up the log."""
    return False


@pytest.fixture(scope="session")
def celery_includes() -> Sequence[str]:
    """Modules that workers import."""
    return ()


@pytest.fixture(scope="session")
def celery_worker_pool() -> Any:
    """The pool of workers."""
    return "solo"


@pytest.fixture(scope="session")
def celery_config() -> Mapping[str, Any]:
    """Settings of the app."""
    return {}


@pytest.fixture(scope="session")
def celery_parameters() -> Mapping[str, Any]:
    """Arguments of `Celery(...)`."""
    return {}


@pytest.fixture(scope="session")
def celery_worker_parameters() -> Mapping[str, Any]:
    """Arguments of workers."""
    return {}


@pytest.fixture
def celery_app(
    request: Any,
    celery_config: Any,
    celery_parameters: Any,
    celery_enable_logging: Any,
    use_celery_app_trap: Any,
) -> Iterator[Any]:
    """An app for one test."""
    with _create_app(
        enable_logging=celery_enable_logging,
        use_trap=use_celery_app_trap,
        parameters=celery_parameters,
        **_config(request, celery_config),
    ) as app:
        yield app


@pytest.fixture(scope="session")
def celery_class_tasks() -> Sequence[Any]:
    """Tasks made as classes, to be registered."""
    return []


@pytest.fixture
def celery_worker(
    request: Any,
    celery_app: Any,
    celery_includes: Any,
    celery_worker_pool: Any,
    celery_worker_parameters: Any,
) -> Iterator[Any]:
    """A worker for one test, in a thread."""
    if NO_WORKER:
        return
    arguments = (celery_app, celery_includes, celery_worker_pool, celery_worker_parameters)
    with _worker(*arguments) as worker:
        yield worker


@pytest.fixture
def depends_on_current_app(celery_app: Any) -> None:
    """Make the test's app the current one."""
    celery_app.set_current()
