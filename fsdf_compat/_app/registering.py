"""How functions and classes become an app's tasks: lazily, and each once."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from typing import Any

from vine import starpromise

from .. import signals
from .._upward import upward
from ..exceptions import DuplicateTaskNameWarning
from ..local import PromiseProxy, maybe_evaluate
from ..utils.functional import head_from_fun
from ..utils.imports import qualname
from .models import pydantic_wrapper

__all__ = [
    "autodiscover_from_fixups", "autodiscover_from_names", "autodiscover_tasks", "finalize",
    "register_task", "task", "task_from_fun", "warn_if_duplicate",
]  # fmt: skip

_PACKAGE = f"{__name__.rpartition('._app')[0]}."
W_DUPTASK = """\
Task name {0!r} is already registered to a different callable.

Existing: {1}
New:      {2}

{3}

Give each task a name of its own: name= of the decorator, or another name of the function."""
_KEPT = (
    "The new callable was not registered; calls under this name reach the callable registered"
    " first."
)
_REPLACED = (
    "The new callable replaced the existing one; calls under this name now reach the new callable."
)


def annotations_of(fun: Any) -> Any:
    """Return a function's annotations; those that cannot be evaluated yet as text."""
    if sys.version_info < (3, 14):
        return fun.__annotations__
    import annotationlib  # type: ignore[import-not-found]  # of Python 3.14

    try:
        return inspect.get_annotations(fun)
    except NameError:
        return inspect.get_annotations(fun, format=annotationlib.Format.STRING)


def task(self: Any, *args: Any, **opts: Any) -> Any:
    """Make a function a task: `@app.task`, or `@app.task(bind=True, ...)`.

    Options become the task's attributes. What it returns stands for the task, which is made when
    it is first used, or when the app is finalized.
    """
    base = upward("app.base")
    if base.USING_EXECV and opts.get("lazy", True):
        # The module may have another app here; the task is to be that of the current one.
        return upward("app").shared_task(*args, **{**opts, "lazy": False})
    if len(args) > 1:
        raise TypeError(f"@task() takes exactly 1 argument ({len(args) + len(opts)} given)")
    decorate = functools.partial(_decorated, self, **opts)
    if not args:
        return decorate
    if not callable(args[0]):
        raise TypeError("argument 1 to @task() must be a callable")
    return decorate(args[0])


def _decorated(
    app: Any, fun: Any, /, shared: bool = True, filter: Any = None, lazy: bool = True, **opts: Any
) -> Any:
    if shared:

        def cons(app: Any) -> Any:
            return app._task_from_fun(fun, **opts)

        cons.__name__ = fun.__name__
        upward("app.base").connect_on_app_finalize(cons)
    made: Any
    if not lazy or app.finalized:
        made = app._task_from_fun(fun, **opts)
    else:
        made = PromiseProxy(app._task_from_fun, (fun,), opts, __doc__=fun.__doc__)
        app._pending.append(made)
    return filter(made) if filter else made


def task_from_fun(
    self: Any, fun: Any, name: str | None = None, base: Any = None, bind: bool = False,
    pydantic: bool = False, pydantic_strict: bool = False, pydantic_context: Any = None,
    pydantic_dump_kwargs: Any = None, **options: Any,
) -> Any:  # fmt: skip
    """Return the task of a function; a name that is taken gives the task that has it."""
    if not self.finalized and not self.autofinalize:
        raise RuntimeError("Contract breach: app not finalized")
    decorated = fun
    name = name or self.gen_task_name(fun.__name__, fun.__module__)
    if name in self._tasks:
        found = self._tasks[name]
        self._warn_if_duplicate_task_name(found, decorated, name)
        return found
    dump = None
    if pydantic is True:
        fun = pydantic_wrapper(
            self, fun, name, pydantic_strict, pydantic_context, pydantic_dump_kwargs
        )
        dump = staticmethod(functools.partial(fun.dump_arguments, bound=bind))
    run = fun if bind else staticmethod(fun)
    body = {
        "app": self, "name": name, "run": run, "_decorated": True,
        "_dump_pydantic_arguments": dump, "__doc__": fun.__doc__, "__module__": fun.__module__,
        "__annotations__": annotations_of(fun), "__wrapped__": run,
        "__header__": self.type_checker(fun, bound=bind),
        "_decorated_fun": staticmethod(decorated), **options,
    }  # fmt: skip
    made = type(fun.__name__, (base or self.Task,), body)()
    if (title := getattr(fun, "__qualname__", None)) is not None:
        made.__qualname__ = title
    self._tasks[made.name] = made
    made.bind(self)
    upward("app.base").add_autoretry_behaviour(made, **options)
    return made


def type_checker(self: Any, fun: Any, bound: bool = False) -> Any:
    """Return what is called with the arguments of a call, to see whether they fit."""
    return staticmethod(head_from_fun(fun, bound=bound))


def register_task(self: Any, task: Any, **options: Any) -> Any:
    """Add a task made as a class with a `run` method, or an object of it; return the object."""
    task = task() if inspect.isclass(task) else task
    if not task.name:
        cls = type(task)
        task.name = self.gen_task_name(cls.__name__, cls.__module__)
    existing = self.tasks.get(task.name)
    if existing is not None and existing is not task:
        _warn(self, task.name, _title(existing), _title(task), _REPLACED)
    upward("app.base").add_autoretry_behaviour(task, **options)
    self.tasks[task.name] = task
    task._app = self
    task.bind(self)
    return task


def _title(task: Any) -> str:
    title: str = qualname(getattr(task, "_decorated_fun", None) or type(task))
    return title


def warn_if_duplicate(self: Any, task: Any, fun: Any, name: str) -> None:
    """Warn if a name is taken by another function; a module that is imported twice has the same."""
    existing = getattr(task, "_decorated_fun", None)
    if existing is not None and existing is not fun:
        _warn(self, name, qualname(existing), qualname(fun), _KEPT)


def _warn(app: Any, name: str, existing: str, new: str, consequence: str) -> None:
    """Warn of a name, once."""
    if name in app._duplicate_task_names_warned:
        return
    app._duplicate_task_names_warned.add(name)
    text = W_DUPTASK.format(name, existing, new, consequence)
    warnings.warn(DuplicateTaskNameWarning(text), stacklevel=_depth_of_caller())


def _depth_of_caller() -> int:
    """Return how far above the caller the first frame is that is not ours."""
    frame, level = sys._getframe(1), 1
    while frame is not None and f"{frame.f_globals.get('__name__', '')}.".startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    return level


def finalize(self: Any, auto: bool = False) -> None:
    """Make all tasks that have been declared, and those that every app has. May be repeated.

    Raises:
        RuntimeError: with `auto`, of an app that was not to be finalized by itself.
    """
    with self._finalize_mutex:
        if self.finalized:
            return
        if auto and not self.autofinalize:
            raise RuntimeError("Contract breach: app not finalized")
        self.finalized = True
        _make_pending(self)  # first: its own are stronger than another app's of the same name
        upward("_state")._announce_app_finalized(self)
        _make_pending(self)
        for each in self._tasks.values():
            each.bind(self)
        self.on_after_finalize.send(sender=self)


def _make_pending(app: Any) -> None:
    while app._pending:
        maybe_evaluate(app._pending.popleft())


def autodiscover_tasks(
    self: Any, packages: Any = None, related_name: str | None = "tasks", force: bool = False
) -> Any:
    """Import `related_name` of each package that has such a module, when modules are imported.

    `packages` may be a function; without any, the fixups know them: Django's installed apps.
    """
    if force:
        return self._autodiscover_tasks(packages, related_name)
    later = starpromise(self._autodiscover_tasks, packages, related_name)
    signals.import_modules.connect(later, weak=False, sender=self)
    return None


def autodiscover(self: Any, packages: Any, related_name: str | None, **kwargs: Any) -> Any:
    """Import what `autodiscover_tasks` was told."""
    if packages:
        return self._autodiscover_tasks_from_names(packages, related_name)
    return self._autodiscover_tasks_from_fixups(related_name)


def autodiscover_from_names(self: Any, packages: Any, related_name: str | None) -> Any:
    """Import the tasks of packages, or of those that a function returns."""
    named = packages() if callable(packages) else packages
    return self.loader.autodiscover_tasks(named, related_name)


def autodiscover_from_fixups(self: Any, related_name: str | None) -> Any:
    """Import the tasks of the packages that fixups know."""
    packages = [
        package
        for fixup in self._fixups
        if hasattr(fixup, "autodiscover_tasks")
        for package in fixup.autodiscover_tasks()
    ]
    return self._autodiscover_tasks_from_names(packages, related_name=related_name)
