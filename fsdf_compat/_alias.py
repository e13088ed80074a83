"""How `import celery` comes to mean this package.

A finder, first in `sys.meta_path`, has each `celery.x` loaded from this package's file, under that
name; so classes, functions and loggers are called `celery.x`, also in pickles and stored results.
`fsdf_compat.x` then is the same module object. Whoever imported a part of either package before
would have other classes than those who come later, so that is refused.

A few modules, each of them whole, come from an installed `celery` of the version whose shape this
is: those that need nothing of ours but what third parties need, too.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import Any

__all__ = ["VARIABLE", "activate", "environment", "is_wanted"]

VARIABLE = "FSDF_AS_CELERY"
ALIAS, PACKAGE = "celery", "fsdf_compat"
HERE = os.path.dirname(os.path.realpath(__file__))

#: What reads the variable when Python starts: in `site-packages`, or else from `PYTHONPATH`.
PTH = "fsdf_as_celery.pth"
START = os.path.join(HERE, "_start")

SERIES = "5.7."
BORROWED = {
    "backends.arangodb", "backends.azureblockblob", "backends.cassandra", "backends.consul",
    "backends.cosmosdbsql", "backends.couchbase", "backends.couchdb", "backends.dynamodb",
    "backends.elasticsearch", "backends.gcs", "backends.mongodb", "backends.s3",
    "contrib.migrate", "contrib.rdb", "contrib.sphinx",
}  # fmt: skip

#: What is not here, and why: an import of it says so, and so do those of its parts.
_EVENTS = "there are no events in this version; the worker's log and `inspect` tell what runs"
_PARTS = "it is a part of Celery's own worker, which is another one here"
ABSENT = {
    "app.events": _EVENTS,
    "apps.multi": "run workers by systemd, supervisor or containers",
    "bin.multi": "run workers by systemd, supervisor or containers",
    "concurrency.asynpool": _PARTS,
    "events": _EVENTS,
    "security": "there are no signed messages in this version",
    "worker.heartbeat": _PARTS,
    "worker.loops": _PARTS,
}


def is_wanted() -> bool:
    """Tell if the environment asks for the alias."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def environment() -> dict[str, str]:
    """Return what child processes need in their environment."""
    wanted = {VARIABLE: "1"}
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    if not any(os.path.exists(os.path.join(folder, PTH)) for folder in folders):
        # Not installed: found by the path, and so is what reads the variable.
        places = [START, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        if os.path.dirname(HERE) not in places:
            places.append(os.path.dirname(HERE))
        wanted["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, places)))
    return wanted


def activate() -> None:
    """Make `celery` mean this package; see there.

    Raises: RuntimeError: something of either package has been imported.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    imported = [
        name
        for name in sys.modules
        if name == ALIAS or name.startswith((f"{ALIAS}.", f"{PACKAGE}."))
        if name != __name__
    ]
    if imported:
        raise RuntimeError(
            f"{imported[0]} is imported already: call {PACKAGE}.activate() before anything that"
            f" imports {ALIAS} or {PACKAGE}, or set {VARIABLE}=1 before Python starts"
        )
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    for name in (PACKAGE, __name__):
        _rename(sys.modules[name], finder)
    os.environ.update(environment())


def _rename(module: ModuleType, finder: _Finder) -> None:
    name = module.__name__.replace(PACKAGE, ALIAS, 1)
    spec = finder.find_spec(name)
    if spec is None:
        raise RuntimeError(f"{module.__name__} has no file at {HERE}")
    for each in list(vars(module).values()):
        if getattr(each, "__module__", None) == module.__name__:
            each.__module__ = name
    module.__name__, module.__spec__, module.__loader__ = name, spec, spec.loader
    module.__package__ = spec.parent
    sys.modules[name] = module
    if spec.parent and spec.parent != name:
        setattr(sys.modules[spec.parent], name.rpartition(".")[2], module)


class _Finder:
    """Finds the modules of both names; a `MetaPathFinder` by its method alone, as the module that
    has that class would make every Python start later.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, _, inner = fullname.partition(".")
        if root not in (ALIAS, PACKAGE):
            return None
        file, folder = _place(inner)
        if file is None:
            return None
        loader = SourceFileLoader if root == ALIAS else _Twin
        return spec_from_file_location(
            fullname,
            file,
            loader=loader(fullname, file),
            submodule_search_locations=[folder] if folder else None,
        )


class _Twin(SourceFileLoader):
    """Loads `fsdf_compat.x` by handing out `celery.x`."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(spec.name.replace(PACKAGE, ALIAS, 1))
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has given it this spec meanwhile.
        module.__spec__ = self.own


def _place(inner: str) -> tuple[str | None, str | None]:
    """Return the file of a module, and its folder if it is a package."""
    base = os.path.join(HERE, *inner.split(".")) if inner else HERE
    package = os.path.join(base, "__init__.py")
    if os.path.isfile(package):
        return package, base
    if os.path.isfile(f"{base}.py"):
        return f"{base}.py", None
    if why := ABSENT.get(inner):
        name = f"{ALIAS}.{inner}"
        raise ModuleNotFoundError(f"{name} is not here: {why}", name=name)
    return (_borrowed(inner), None) if inner in BORROWED else (None, None)


def _borrowed(inner: str) -> str:
    from importlib import metadata  # it takes longer to load than all else that starts with Python

    name = f"{ALIAS}.{inner}"
    try:
        found: Any = metadata.distribution("celery")
    except metadata.PackageNotFoundError:
        found = None
    if found is not None and found.version.startswith(SERIES):
        file = str(found.locate_file(f"{name.replace('.', '/')}.py"))
        if os.path.isfile(file):
            return file
    have = f"; {found.version} is installed" if found is not None else ""
    raise ModuleNotFoundError(
        f'{name} is taken from Celery itself{have}: pip install "celery=={SERIES}*"', name=name
    )
