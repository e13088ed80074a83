"""What loaders have in common."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from types import ModuleType
from typing import Any

from kombu.utils import json
from kombu.utils.objects import cached_property

from .. import signals
from ..utils.collections import DictAttribute, force_mapping
from ..utils.functional import maybe_list
from ..utils.imports import NotAPackage, find_module, import_from_cwd, symbol_by_name

__all__ = ["BaseLoader"]

# Discovering in the middle of discovering finds nothing: a module may make its app anew.
_RACE_PROTECTION = False

CONFIG_INVALID_NAME = (
    "Error: Module '{module}' doesn't exist, or it's not a valid Python module name."
)
CONFIG_WITH_SUFFIX = CONFIG_INVALID_NAME + " Did you mean '{suggest}'?"

unconfigured = object()


class BaseLoader:
    """Reads settings, imports modules of tasks; to be derived from for hooks of a worker."""

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: Mapping[str, Any] = {}
    worker_initialized = False
    _conf: Any = unconfigured

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    def now(self, utc: bool = True) -> datetime:
        """Return the time: in UTC, or this machine's without a zone."""
        return datetime.now(timezone.utc) if utc else datetime.now()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """To be overridden: before each run."""

    def on_process_cleanup(self) -> None:
        """To be overridden: after each run."""

    def on_worker_init(self) -> None:
        """To be overridden: when a worker starts."""

    def on_worker_shutdown(self) -> None:
        """To be overridden: when a worker ends."""

    def on_worker_process_init(self) -> None:
        """To be overridden: when a child of a worker starts."""

    def import_task_module(self, module: str) -> ModuleType:
        """Import a module of tasks from the current folder or the path."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(
        self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None
    ) -> ModuleType:
        """Import a module of the current folder, else of the path."""
        return import_from_cwd(module, imp or self.import_module, package=package)

    def import_default_modules(self) -> list[ModuleType]:
        """Import what is discovered, and what settings name.

        Raises: whatever a module raises: there are no logs yet that would tell of it.
        """
        for _, answer in signals.import_modules.send(sender=self.app):
            if isinstance(answer, Exception):
                raise answer
        return [self.import_task_module(module) for module in self.default_modules]

    def init_worker(self) -> None:
        """Import all modules, once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """Tell the hook."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """Tell the hook."""
        self.on_worker_process_init()

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Take the settings of a map, an object or what a name says.

        Raises: ImportError, AttributeError: there is none of this name, and `silent` is false.
        """
        if isinstance(obj, str):
            try:
                obj = self._smart_import(obj, imp=self.import_from_cwd)
            except (ImportError, AttributeError):
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        overridden = self._conf.get("override_backends")
        if overridden is not None:
            self.override_backends = overridden
        return True

    def _smart_import(self, path: str, imp: Callable[..., Any] | None = None) -> Any:
        imp = imp or self.import_module
        if ":" not in path:
            try:
                return imp(path)
            except ImportError:  # of "module.name" the last part may be no module
                pass
        return symbol_by_name(path, imp=imp)

    def _import_config_module(self, name: str) -> ModuleType:
        try:
            self.find_module(name)
        except NotAPackage as error:
            if name.endswith(".py"):
                text = CONFIG_WITH_SUFFIX.format(module=name, suggest=name[:-3])
            else:
                text = CONFIG_INVALID_NAME.format(module=name)
            raise NotAPackage(text) from error
        return self.import_from_cwd(name)

    def find_module(self, module: str) -> ModuleType:
        """Import a module, or say why it is none."""
        return find_module(module)

    def cmdline_config_parser(
        self,
        args: Iterable[str],
        namespace: str = "celery",
        re_type: re.Pattern[str] = re.compile(r"\((\w+)\)"),
        extra_types: Mapping[str, Callable[[str], Any]] | None = None,
        override_types: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return the settings of `worker.concurrency=3`, `.x=1` (of `namespace`), `a.b=(list)[]`.

        Raises: ValueError: a value is not of its setting's type.
        """
        # What is above: the table of all settings.
        defaults = importlib.import_module(f"{__name__.removesuffix('.loaders.base')}.app.defaults")
        types = {**defaults.Option.typemap, **(extra_types or {"json": json.loads})}
        aliases = override_types or {"tuple": "json", "list": "json", "dict": "json"}

        def setting(arg: str) -> tuple[str, Any]:
            key, value = arg.split("=", 1)
            key = key.lower().replace(".", "_")
            space, _, name = key.partition("_")
            if not space:
                space = (namespace or "").lower()
            full = f"{space}_{name}" if space else name
            given = re_type.match(value)
            if given:
                type_ = given.group(1)
                return full, types[aliases.get(type_, type_)](value[given.end() :])
            try:
                return full, defaults.NAMESPACES[space][name].to_python(value)
            except ValueError as error:
                raise ValueError(f"{full!r}: {error}") from error

        return dict(map(setting, args))

    def read_configuration(self, env: Any = "CELERY_CONFIG_MODULE") -> Any:
        """Return the settings of the module that the environment names; None if it names none."""
        name = os.environ.get(env)
        return DictAttribute(self._import_config_module(name)) if name else None

    def autodiscover_tasks(
        self, packages: Iterable[str] | None, related_name: Any = "tasks"
    ) -> None:
        """Import a module of each package that has it."""
        found = autodiscover_tasks(packages or (), related_name)
        self.task_modules.update(module.__name__ for module in found if module)

    @cached_property
    def default_modules(self) -> tuple[str, ...]:
        """The modules that settings name."""
        conf = self.app.conf
        return (*self.builtin_modules, *maybe_list(conf.imports), *maybe_list(conf.include))

    @property
    def conf(self) -> Any:
        """The settings, read when they are asked for."""
        if self._conf is unconfigured:
            self._conf = self.read_configuration()
        return self._conf


def autodiscover_tasks(packages: Iterable[str], related_name: Any = "tasks") -> Any:
    """Import `package.related_name` of each package; return the modules, None where is none."""
    global _RACE_PROTECTION

    if _RACE_PROTECTION:
        return ()
    _RACE_PROTECTION = True
    try:
        return [find_related_module(package, related_name) for package in packages]
    finally:
        _RACE_PROTECTION = False


def find_related_module(package: str, related_name: Any) -> ModuleType | None:
    """Import `package.related_name`; None if there is none. Without a name, the package itself.

    Of "package.Class", as Django names its applications, the package counts.

    Raises: ModuleNotFoundError: what was found imports what is not there.
    """
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError:
        package, _, _ = package.rpartition(".")
        if not package:
            raise
    else:
        if not related_name:
            return module
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise
