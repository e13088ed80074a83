"""`app.conf`, and what finds, pickles and describes apps."""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import billiard
import kombu
from kombu.connection import Connection

from .._app.urls import sanitize_url
from ..exceptions import ImproperlyConfigured
from ..platforms import pyimplementation
from ..utils import deprecated
from ..utils.collections import ConfigurationView
from ..utils.imports import import_from_cwd, qualname, symbol_by_name
from ..utils.text import pretty
from .defaults import (
    _OLD_DEFAULTS,
    _OLD_SETTING_KEYS,
    _TO_NEW_KEY,
    _TO_OLD_KEY,
    DEFAULTS,
    SETTING_KEYS,
    find,
)

__all__ = [
    "AppPickler", "Settings", "appstr", "bugreport", "detect_settings", "filter_hidden_settings",
    "find_app", "sanitize_url",
]  # fmt: skip

BUGREPORT_INFO = """
software -> celery:{celery_v} kombu:{kombu_v} py:{py_v}
            billiard:{billiard_v} {driver_v}
platform -> system:{system} arch:{arch}
            kernel version:{kernel_version} imp:{py_i}
loader   -> {loader}
settings -> transport:{transport} results:{results}

{human_settings}
"""
HIDDEN_SETTINGS = re.compile(
    "API|TOKEN|KEY|SECRET|PASS|PROFANITIES_LIST|SIGNATURE|DATABASE|BEAT_DBURI", re.IGNORECASE
)
_URLS = {"broker_url", "broker_read_url", "broker_write_url"}
_MIXED = """

Old and new names of settings cannot be mixed. Rename these to the {form} form:

{renames}
{more}"""


def appstr(app: Any) -> str:
    """Return what names an app in texts."""
    return f"{app.main or '__main__'} at {id(app):#x}"


class Settings(ConfigurationView):
    """`app.conf`: set values, then loaded ones, then defaults; attributes and items are the same.

    Four URLs are taken from the environment where it has them.
    """

    def __init__(
        self, *args: Any, deprecated_settings: set[str] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.deprecated_settings = deprecated_settings
        self.__dict__["revision"] = object()  # another one whenever a setting is changed here
        self.__dict__["_names"] = {}

    def _to_keys(self, key: str) -> tuple[str, ...]:
        names: dict[str, tuple[str, ...]] = self.__dict__["_names"]
        if (known := names.get(key)) is None:
            known = names[key] = super()._to_keys(key)
        return known

    def __getitem__(self, key: str) -> Any:
        """As of any view; this is asked several times for every message."""
        if self.key_t is not None:
            return super().__getitem__(key)
        names = self._to_keys(key)
        for mapping in self.maps:
            has = mapping.__contains__ if type(mapping) is dict else None
            for name in names:
                if has is None:
                    try:
                        return mapping[name]  # it may load the settings
                    except KeyError:
                        pass
                elif has(name):
                    return mapping[name]
        return super().__getitem__(key)

    def _changing(name: str) -> Any:  # type: ignore[misc]
        method = getattr(ConfigurationView, name)

        @functools.wraps(method)
        def change(self: Any, *args: Any, **kwargs: Any) -> Any:
            self.__dict__["revision"] = object()
            return method(self, *args, **kwargs)

        return change

    __setitem__, __delitem__ = _changing("__setitem__"), _changing("__delitem__")
    add_defaults = _changing("add_defaults")
    clear, pop, update = _changing("clear"), _changing("pop"), _changing("update")
    del _changing

    def swap_with(self, other: Any) -> None:
        """Take everything over from another one."""
        self.__dict__.update(revision=object(), _names={})
        super().swap_with(other)

    def copy(self) -> Settings:
        """Return settings of their own, with the same defaults."""
        self.finalize()
        copied = super().copy()
        copied.changes.pop("deprecated_settings", None)
        if "deprecated_settings" in self.changes:
            copied.changes["deprecated_settings"] = self.changes["deprecated_settings"]
        return copied

    __copy__ = copy

    @property
    def broker_read_url(self) -> Any:
        """Where workers fetch from."""
        return self._url("CELERY_BROKER_READ_URL", "broker_read_url") or self.broker_url

    @property
    def broker_write_url(self) -> Any:
        """Where messages are published to."""
        return self._url("CELERY_BROKER_WRITE_URL", "broker_write_url") or self.broker_url

    @property
    def broker_url(self) -> Any:
        """Where messages wait."""
        return self._url("CELERY_BROKER_URL", "broker_url", "broker_host")

    @property
    def result_backend(self) -> Any:
        """Where results are kept."""
        return self._url("CELERY_RESULT_BACKEND", "result_backend", "CELERY_RESULT_BACKEND")

    def _url(self, variable: str, *keys: str) -> Any:
        return os.environ.get(variable) or self.first(*keys)

    @property
    def task_default_exchange(self) -> Any:
        """The exchange of queues that name none: by default as the default queue."""
        return self.first("task_default_exchange", "task_default_queue")

    @property
    def task_default_routing_key(self) -> Any:
        """The routing key of queues that name none: by default as the default queue."""
        return self.first("task_default_routing_key", "task_default_queue")

    @property
    def timezone(self) -> Any:
        """The time zone; Django's setting is understood."""
        return self.first("timezone", "TIME_ZONE")

    def without_defaults(self) -> Settings:
        """Return what was set or loaded."""
        return Settings({}, self.maps[:-1])

    def value_set_for(self, key: str) -> bool:
        """Say whether a setting, by whatever of its names, is not only a default."""
        self.finalize()
        return key in Settings({}, self.maps[:-1], self._keys, self.prefix)

    def find_option(self, name: str, namespace: str = "") -> Any:
        """Return (family, name, option) for the name of an option."""
        return find(name, namespace)

    def find_value_for_key(self, name: str, namespace: str = "celery") -> Any:
        """Return the value of an option that is given without its family."""
        return self.get_by_parts(*self.find_option(name, namespace)[:-1])

    def get_by_parts(self, *parts: str | None) -> Any:
        """Return the value of a setting whose name is given in parts."""
        return self["_".join(part for part in parts if part)]

    def finalize(self) -> Settings:
        """Load the configuration, if that has not been done."""
        self.get("__bogus__")
        return self

    def table(self, with_defaults: bool = False, censored: bool = True) -> dict[str, Any]:
        """Return the settings as a dict, by default without secrets and defaults."""
        self.finalize()
        source = self if with_defaults else self.without_defaults()
        foreign = {*dir(dict)}
        shown = {k: v for k, v in source.items() if k[0] != "_" and k not in foreign}
        return filter_hidden_settings(shown) if censored else shown

    def humanize(self, with_defaults: bool = False, censored: bool = True) -> str:
        """Return the settings as text, a line each."""
        settings = self.table(with_defaults, censored).items()
        return "\n".join(f"{key}: {pretty(value, width=50)}" for key, value in settings)

    def maybe_warn_deprecated_settings(self) -> bool:
        """Warn of old names that were used; say whether there were any."""
        for name in sorted(self.deprecated_settings or ()):
            deprecated.warn(
                description=f"The {name!r} setting",
                removal="6.0.0",
                alternative=f"Use the {_TO_NEW_KEY[name]} instead",
            )
        return bool(self.deprecated_settings)


def _new_key_to_old(key: str, convert: Callable[..., str] = _TO_OLD_KEY.get) -> str:
    return convert(key, key)


def _old_key_to_new(key: str, convert: Callable[..., str] = _TO_NEW_KEY.get) -> str:
    return convert(key, key)


class _Form(NamedTuple):
    """New names or old ones: what settings of this form are by default, and how others become so"""

    name: str
    defaults: Mapping[str, Any]
    renamed: Mapping[str, str]
    more: str = ""


_NEW = _Form("new", DEFAULTS, _TO_NEW_KEY)
_OLD = _Form("old", _OLD_DEFAULTS, _TO_OLD_KEY, "\nOr use new names for all of them.\n")


def detect_settings(
    conf: Any,
    preconf: Mapping[str, Any] | None = None,
    ignore_keys: Iterable[str] | None = None,
    prefix: str | None = None,
    all_keys: set[str] | None = None,
    old_keys: set[str] | None = None,
) -> Settings:
    """Return the settings of a source, whose names are all new or all old.

    `preconf` was set before; its `ignore_keys` say nothing about the form.

    Raises:
        ImproperlyConfigured: names of both forms are there, and not for the same settings.
    """
    preconf = preconf or {}
    source, conf = (preconf, {}) if conf is None else (conf, conf)
    have = set(source.keys()) - set(ignore_keys or ())
    new = have & (all_keys or SETTING_KEYS)
    old = have & (old_keys or _OLD_SETTING_KEYS)
    form, wrong = _NEW, old
    if not prefix and old and (not new or len(old) > len(new)):
        form, wrong = _OLD, new
    wrong = set() if prefix else {key for key in wrong if form.renamed[key] not in have}
    if wrong:
        renames = "\n".join(f"{key:<36} -> {form.renamed[key]}" for key in sorted(wrong))
        text = _MIXED.format(form=form.name, renames=renames, more=form.more)
        raise ImproperlyConfigured(text)
    return Settings(
        {form.renamed.get(key, key): value for key, value in preconf.items()},
        [conf, deepcopy(dict(form.defaults))],
        (_old_key_to_new, _new_key_to_old),
        deprecated_settings=old,
        prefix=prefix,
    )


class AppPickler:
    """How an app whose class has `__reduce_args__` of its own is made again."""

    def __call__(self, cls: Any, *args: Any) -> Any:
        kwargs = self.build_kwargs(*args)
        app = self.construct(cls, **kwargs)
        self.prepare(app, **kwargs)
        return app

    def prepare(self, app: Any, **kwargs: Any) -> None:
        """Set what had been changed in the settings."""
        app.conf.update(kwargs["changes"])

    def build_kwargs(self, *args: Any) -> dict[str, Any]:
        """Return what to make the app with."""
        return self.build_standard_kwargs(*args)

    def build_standard_kwargs(
        self, main: Any, changes: Any, loader: Any, backend: Any, amqp: Any, events: Any, log: Any,
        control: Any, accept_magic_kwargs: Any, config_source: Any = None,
        config_source_silent: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Return what to make the app with, for the arguments of `__reduce_args__`."""
        return {
            "main": main, "loader": loader, "backend": backend, "amqp": amqp, "changes": changes,
            "events": events, "log": log, "control": control, "set_as_current": False,
            "config_source": config_source, "config_source_silent": config_source_silent,
        }  # fmt: skip

    def construct(self, cls: Any, **kwargs: Any) -> Any:
        """Make the app."""
        return cls(**kwargs)


def _unpickle_app(cls: Any, pickler: Any, *args: Any) -> Any:
    return pickler()(cls, *args)


def _unpickle_app_v2(cls: Any, kwargs: dict[str, Any]) -> Any:
    kwargs["set_as_current"] = False
    return cls(**kwargs)


def filter_hidden_settings(conf: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return settings without what may be secret."""
    return {key: _censored(key, value) for key, value in conf.items()}


def _censored(key: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return filter_hidden_settings(value)
    if not isinstance(key, str):
        return value
    mask = "*" * 8
    if HIDDEN_SETTINGS.search(key):
        return mask
    if key.lower() in _URLS:
        return Connection(value).as_uri(mask=mask)
    return sanitize_url(value, mask) if "backend" in key.lower() else value


def bugreport(app: Any) -> str:
    """Return what a report about an error should say of versions and settings."""
    try:
        connection = app.connection()
        transport = connection.transport
        driver = f"{transport.driver_name}:{transport.driver_version()}"
        kind = connection.transport_cls
    except Exception:  # a driver that is not installed is not the error that is reported
        kind = driver = ""
    root = import_module("..", __package__)  # above us: it says which version this is
    return BUGREPORT_INFO.format(
        system=platform.system(),
        arch=", ".join(part for part in platform.architecture() if part),
        kernel_version=platform.release(),
        py_i=pyimplementation(),
        celery_v=root.VERSION_BANNER,
        kombu_v=kombu.__version__,
        billiard_v=billiard.__version__,
        py_v=platform.python_version(),
        driver_v=driver,
        transport=kind,
        results=sanitize_url(app.conf.result_backend or "disabled"),
        human_settings=app.conf.humanize(),
        loader=qualname(app.loader.__class__),
    )


def find_app(
    app: str, symbol_by_name: Callable[..., Any] = symbol_by_name, imp: Any = import_from_cwd
) -> Any:
    """Import what `-A` names and return its app.

    A module has it as `app` or `celery`, or by any name; a package also in its module `celery`.

    Raises:
        AttributeError: there is none.
    """
    try:
        found = symbol_by_name(app, imp=imp)
    except AttributeError:  # the last part is no attribute, but a module
        found = imp(app)
    if not isinstance(found, ModuleType) or ":" in app:
        return found
    for name in ("app", "celery"):
        if not isinstance(made := getattr(found, name, found), ModuleType):
            return made
    if getattr(found, "__path__", None):
        try:
            return find_app(f"{app}.celery", symbol_by_name=symbol_by_name, imp=imp)
        except ImportError:
            pass
    cls = import_module(".base", __package__).Celery
    for made in vars(found).values():
        if isinstance(made, cls):
            return made
    raise AttributeError(f"module {app!r} has no Celery app; name it: module:attribute")
