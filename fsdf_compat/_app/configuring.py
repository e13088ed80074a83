"""Where an app's settings come from; they are loaded when one is first read."""

from __future__ import annotations

import logging
import os
from collections import UserDict
from collections.abc import Callable
from typing import Any

from kombu.utils.objects import cached_property

from ..app.utils import detect_settings
from ..exceptions import ImproperlyConfigured
from ..local import maybe_evaluate
from ..utils import abstract
from ..utils.collections import AttributeDictMixin
from ..utils.dispatch import Signal
from . import shown_by

__all__ = [
    "PendingConfiguration", "add_defaults", "add_periodic_task", "config_from_cmdline",
    "config_from_envvar", "config_from_object", "detected", "finalize_pending",
    "keep_periodic_task", "load_config", "periodic_entry",
]  # fmt: skip

logger = logging.getLogger("celery.app.base")
ERR_ENVVAR_NOT_SET = (
    "The environment variable {0!r} is not set, and as such the configuration could not be loaded."
    " Set it to the name of the module that has the settings: {0}=proj.celeryconfig"
)


@shown_by("app.base")
class PendingConfiguration(UserDict[str, Any], AttributeDictMixin):
    """What is set before the configuration is loaded; reading anything loads it."""

    callback: Callable[[], Any]
    _data: dict[str, Any]

    def __init__(self, conf: dict[str, Any], callback: Callable[[], Any]) -> None:
        object.__setattr__(self, "_data", conf)
        object.__setattr__(self, "callback", callback)

    def __setitem__(self, key: str, value: Any) -> None:
        self._data[key] = value

    def clear(self) -> None:
        """Forget what was set."""
        self._data.clear()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several."""
        self._data.update(*args, **kwargs)

    def setdefault(self, *args: Any, **kwargs: Any) -> Any:
        """Set what has not been set; what would be loaded is not looked at."""
        return self._data.setdefault(*args, **kwargs)

    def __contains__(self, key: object) -> bool:
        return key in self._data

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return repr(self.data)

    @cached_property
    def data(self) -> Any:
        """The loaded settings."""
        return self.callback()


def config_from_object(
    self: Any, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
) -> Any:
    """Take settings from a module, class or mapping, or from its name, at the first look.

    With a namespace only names that begin with it count. `silent` ignores that there is none.
    """
    self._config_source = obj
    self._config_source_silent = silent
    self.namespace = namespace or self.namespace
    if (force or self.configured) and self.loader.config_from_object(obj, silent=silent):
        self._conf = None
        return self.conf
    return None


def config_from_envvar(
    self: Any, variable_name: str, silent: bool = False, force: bool = False
) -> Any:
    """Take settings from the module that an environment variable names.

    Raises:
        ImproperlyConfigured: it is not set.
    """
    if module := os.environ.get(variable_name):
        return self.config_from_object(module, silent=silent, force=force)
    if silent:
        return False
    raise ImproperlyConfigured(ERR_ENVVAR_NOT_SET.format(variable_name))


def config_from_cmdline(self: Any, argv: Any, namespace: str = "celery") -> None:
    """Take settings from arguments such as `worker.prefetch_multiplier=1`."""
    self._conf.update(self.loader.cmdline_config_parser(argv, namespace))


def add_defaults(self: Any, fun: Any) -> Any:
    """Add weaker settings, given as a mapping or as a function that is called when needed."""
    source = fun if callable(fun) else lambda: fun
    if self.configured:
        return self._conf.add_defaults(source())
    self._pending_defaults.append(source)
    return None


def load_config(self: Any) -> Any:
    """Load the settings, and do what has waited for them."""
    if isinstance(self.on_configure, Signal):
        self.on_configure.send(sender=self)
    else:
        self.on_configure()
    if self._config_source:
        self.loader.config_from_object(self._config_source, silent=self._config_source_silent)
    self.configured = True
    settings = self._detect_settings(self.prepare_config(self.loader.conf))
    if self._conf is None:
        self._conf = settings
    else:
        self._conf.swap_with(settings)  # whoever has it goes on with the loaded ones
    while self._pending_defaults:
        self._conf.add_defaults(maybe_evaluate(self._pending_defaults.popleft()()))
    while self._pending_periodic_tasks:
        args, kwargs = self._pending_periodic_tasks.popleft()
        self._add_periodic_task(*args, **kwargs)
    self.on_after_configure.send(sender=self, source=self._conf)
    return self._conf


def finalize_pending(self: Any) -> Any:
    """Load the settings, because one is read."""
    try:
        self._conf = self._load_config()
    except AttributeError as error:  # it would look as if a setting were missing
        raise ModuleNotFoundError(*error.args) from error
    return self._conf


def add_periodic_task(
    self: Any, schedule: Any, sig: Any, args: Any = (), kwargs: Any = (), name: str | None = None,
    **opts: Any,
) -> str:  # fmt: skip
    """Let beat send a signature again and again; return its key in `beat_schedule`.

    Signatures that are alike need different names.
    """
    key, entry = self._sig_to_periodic_task_entry(schedule, sig, args, kwargs, name, **opts)
    if self.configured:
        self._add_periodic_task(key, entry, name=name)
    else:
        self._pending_periodic_tasks.append([(key, entry), {"name": name}])
    return key


def periodic_entry(
    self: Any, schedule: Any, sig: Any, args: Any = (), kwargs: Any = None,
    name: str | None = None, **opts: Any,
) -> tuple[str, dict[str, Any]]:  # fmt: skip
    """Return the key and the entry that `beat_schedule` gets for a signature or a task."""
    if isinstance(sig, abstract.CallableSignature):
        sig = sig.clone(args, kwargs or {})
    else:
        sig = self.signature(sig.name, args, kwargs or {})
    entry = {
        "schedule": schedule, "task": sig.name, "args": sig.args, "kwargs": sig.kwargs,
        "options": {**sig.options, **opts},
    }  # fmt: skip
    return name or repr(sig), entry


def keep_periodic_task(self: Any, key: str, entry: Any, name: str | None = None) -> None:
    """Put an entry into `beat_schedule`; warn if one without a name is lost by that."""
    if name is None and key in self._conf.beat_schedule:
        logger.warning(
            f"Periodic task key='{key}' shadowed a previous unnamed periodic task."
            " Pass a name kwarg to add_periodic_task to silence this warning."
        )
    self._conf.beat_schedule[key] = entry


def detected(self: Any, source: Any) -> Any:
    """Return the settings that a source gives to this app."""
    ignored = self._preconf_set_by_auto
    return detect_settings(source, self._preconf, ignored, prefix=self.namespace)
