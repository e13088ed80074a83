"""The app: `Celery`. Its methods lie in `_app`, by what they are about."""

from __future__ import annotations

import importlib
import os
import threading
import types
from collections import defaultdict
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from kombu.clocks import LamportClock
from kombu.common import oid_from
from kombu.utils import compat
from kombu.utils.objects import cached_property as forgettable
from vine import starpromise

from fsdf_engine import Engine

from .. import platforms
from .._app import (
    beginning,
    commands,
    configuring,
    connecting,
    owning,
    parts,
    places,
    registering,
    sending,
)
from .._app.configuring import PendingConfiguration
from .._app.models import pydantic_wrapper
from .._app.parts import _unpickle_appattr
from .._state import (
    _deregister_app,
    _register_app,
    _set_current_app,
    _task_stack,
    connect_on_app_finalize,
    get_current_worker_task,
    set_default_app,
)
from .._upward import upward
from ..loaders import get_loader_cls
from ..utils.functional import first
from ..utils.imports import gen_task_name, symbol_by_name
from ..utils.log import get_logger
from ..utils.objects import mro_lookup
from ..utils.quorum_queues import detect_quorum_queues
from ..utils.time import timezone, to_utc
from . import backends, builtins  # noqa: F401 - which every app has
from .annotations import prepare as prepare_annotations
from .autoretry import add_autoretry_behaviour
from .defaults import find_deprecated_settings
from .utils import (
    AppPickler,
    Settings,
    _new_key_to_old,
    _old_key_to_new,
    _unpickle_app,
    _unpickle_app_v2,
    appstr,
    bugreport,
)

if TYPE_CHECKING:
    from .._app.typed import Decorator

__all__ = [
    "App", "Celery", "PendingConfiguration", "_unpickle_appattr", "add_autoretry_behaviour",
    "connect_on_app_finalize", "detect_quorum_queues", "importlib", "pydantic_wrapper",
]  # fmt: skip

logger = get_logger("celery.app.base")
register_after_fork: Any = compat.register_after_fork  # type: ignore[attr-defined]
BUILTIN_FIXUPS = {"celery.fixups.django:fixup"}
# A spawned child has another app in the module of a task than the one that works there.
USING_EXECV = os.environ.get("FORKED_BY_MULTIPROCESSING")


def app_has_custom(app: Any, attr: str) -> Any:
    """Return the class that overrides an attribute of the app, or None."""
    return mro_lookup(app.__class__, attr, stop={Celery, object}, monkey_patched=[__name__])


def _after_fork_cleanup_app(app: Any) -> None:
    try:
        app._after_fork()
    except Exception as error:  # of a receiver of the user's: the child works all the same
        logger.info("after forker raised exception: %r", error, exc_info=True)


@owning
class Celery:
    """An application: its settings, its tasks, and the engine that carries them.

    Making one opens nothing and reads nothing. Classes may be given by name; further keyword
    arguments are settings, stronger than loaded ones.
    """

    Pickler = AppPickler
    SYSTEM = platforms.SYSTEM
    IS_macOS, IS_WINDOWS = platforms.IS_macOS, platforms.IS_WINDOWS
    main: str | None = None
    user_options: Any = None
    steps: Any = None
    builtin_fixups = BUILTIN_FIXUPS
    amqp_cls: Any = "celery.app.amqp:AMQP"
    backend_cls: Any = None
    events_cls: Any = "celery.app.events:Events"
    loader_cls: Any = None
    log_cls: Any = "celery.app.log:Logging"
    control_cls: Any = "celery.app.control:Control"
    task_cls: Any = "celery.app.task:Task"
    registry_cls: Any = "celery.app.registry:TaskRegistry"
    on_configure: Any = None
    on_after_configure: Any = None
    on_after_finalize: Any = None
    on_after_fork: Any = None
    _local: Any = None
    _preconf: dict[str, Any]
    _preconf_set_by_auto: set[str]
    _tasks: Any
    _fixups: Any = None
    _pool: Any = None
    _conf: Any = None
    _after_fork_registered = False

    def __init__(
        self, main: str | None = None, loader: Any = None, backend: Any = None, amqp: Any = None,
        events: Any = None, log: Any = None, control: Any = None, set_as_current: bool = True,
        tasks: Any = None, broker: Any = None, include: Any = None, changes: Any = None,
        config_source: Any = None, fixups: Any = None, task_cls: Any = None,
        autofinalize: bool = True, namespace: str | None = None, strict_typing: bool = True,
        config_source_silent: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._local = threading.local()
        self._backend_cache: Any = None
        self.clock = LamportClock()
        self.engine = Engine()
        self.main = main
        self.amqp_cls, self.events_cls = amqp or self.amqp_cls, events or self.events_cls
        self.loader_cls = loader or self._get_default_loader()
        self.log_cls, self.control_cls = log or self.log_cls, control or self.control_cls
        self._custom_task_cls_used = bool(task_cls) or bool(app_has_custom(self, "task_cls"))
        self.task_cls = task_cls or self.task_cls
        self.set_as_current = set_as_current
        self.registry_cls = symbol_by_name(self.registry_cls)
        self.user_options, self.steps = defaultdict(set), defaultdict(set)
        self.namespace, self.strict_typing = namespace, strict_typing
        beginning.begin_configuration(self, config_source, config_source_silent)
        beginning.begin_tasks(self, tasks, autofinalize)
        self._using_v1_reduce = app_has_custom(self, "__reduce_args__")
        given = {"broker_url": broker, "result_backend": backend, "include": include, **kwargs}
        beginning.set_first(self, changes, given)
        self._conf = Settings(
            PendingConfiguration(self._preconf, self._finalize_pending_conf),
            prefix=self.namespace,
            keys=(_old_key_to_new, _new_key_to_old),
        )
        self.fixups = set(self.builtin_fixups) if fixups is None else fixups
        self._fixups = [symbol_by_name(fixup)(self) for fixup in self.fixups]
        if self.set_as_current:
            self.set_current()
        beginning.make_signals(self)
        self.use_fast_trace_task = False  # set by a worker
        self.on_init()
        _register_app(self)

    _get_default_loader = beginning.default_loader

    def on_init(self) -> None:
        """Be called when the app has been made. Override it."""

    def set_current(self) -> None:
        """Make this the current app of this thread."""
        _set_current_app(self)

    def set_default(self) -> None:
        """Make this the app of every thread that has none of its own."""
        set_default_app(self)

    def close(self) -> None:
        """Stop what runs here, free every connection, and be no app any more."""
        self._pool = None
        self.engine.close()
        _deregister_app(self)

    start, worker_main = commands.start, commands.worker_main
    setup_security, cancel = commands.setup_security, commands.cancel
    purge_queue = commands.purge_queue

    # ---------------------------------------------------------------- tasks

    task: Decorator = registering.task  # type: ignore[assignment]
    _task_from_fun = registering.task_from_fun
    type_checker, register_task = registering.type_checker, registering.register_task
    finalize = registering.finalize
    _warn_if_duplicate_task_name = registering.warn_if_duplicate
    autodiscover_tasks = registering.autodiscover_tasks
    _autodiscover_tasks = registering.autodiscover
    _autodiscover_tasks_from_names = registering.autodiscover_from_names
    _autodiscover_tasks_from_fixups = registering.autodiscover_from_fixups
    send_task = sending.send_task

    def gen_task_name(self, name: str, module: str) -> Any:
        """Return the name of a task that was given none."""
        return gen_task_name(self, name, module)

    @cached_property
    def tasks(self) -> Any:
        """The tasks by name; asking for them finalizes the app."""
        self.finalize(auto=True)
        return self._tasks

    def create_task_cls(self) -> Any:
        """Return the class that tasks of this app have as base."""
        return self.subclass_with_self(
            self.task_cls, name="Task", attribute="_app", keep_reduce=True, abstract=True
        )

    # ---------------------------------------------------------------- settings

    config_from_object, config_from_envvar = (
        configuring.config_from_object, configuring.config_from_envvar,
    )  # fmt: skip
    config_from_cmdline, add_defaults = configuring.config_from_cmdline, configuring.add_defaults
    _load_config, _finalize_pending_conf = configuring.load_config, configuring.finalize_pending
    add_periodic_task = configuring.add_periodic_task
    _sig_to_periodic_task_entry = configuring.periodic_entry

    _detect_settings = configuring.detected
    _add_periodic_task = configuring.keep_periodic_task

    @property
    def conf(self) -> Any:
        """The settings."""
        if self._conf is None:
            self._conf = self._load_config()
        return self._conf

    @conf.setter
    def conf(self, d: Any) -> None:
        self._conf = d

    def prepare_config(self, c: Any) -> Any:
        """Return loaded settings as they are to be used. Override it."""
        return find_deprecated_settings(c)

    def either(self, default_key: str, *defaults: Any) -> Any:
        """Return the first that is not None, else a setting."""
        return first(None, [first(None, defaults), starpromise(self.conf.get, default_key)])

    engine_options = places.engine_options

    # ---------------------------------------------------------------- connections

    connection_for_read, connection_for_write = (
        connecting.connection_for_read, connecting.connection_for_write,
    )  # fmt: skip
    connection = broker_connection = connecting.connection
    _connection = connecting.connect
    _acquire_connection = connecting.acquire_connection
    connection_or_acquire = default_connection = connecting.connection_or_acquire
    _acquire_producer = connecting.acquire_producer
    producer_or_acquire = default_producer = connecting.producer_or_acquire
    pool = property(connecting.pool)

    def select_queues(self, queues: Any = None) -> Any:
        """Consume from these queues only."""
        return self.amqp.queues.select(queues)

    @property
    def producer_pool(self) -> Any:
        """Kombu's pool of producers."""
        return self.amqp.producer_pool

    def _ensure_after_fork(self) -> None:
        if not self._after_fork_registered:
            self._after_fork_registered = True
            if register_after_fork is not None:
                register_after_fork(self, _after_fork_cleanup_app)

    def _after_fork(self) -> None:
        self._pool = None
        if (made := self.__dict__.get("amqp")) is not None:
            made._producer_pool = None
        self.on_after_fork.send(sender=self)

    # ---------------------------------------------------------------- parts

    amqp, log = parts.instance_of("amqp_cls"), parts.instance_of("log_cls")
    control, events = parts.instance_of("control_cls"), parts.instance_of("events_cls")
    Worker = parts.bound_class("celery.apps.worker:Worker")
    WorkController = parts.bound_class("celery.worker:WorkController")
    Beat = parts.bound_class("celery.apps.beat:Beat")
    AsyncResult = parts.bound_class("celery.result:AsyncResult")
    ResultSet = parts.bound_class("celery.result:ResultSet")
    GroupResult = parts.bound_class("celery.result:GroupResult")
    subclass_with_self = parts.subclass_with_self
    _backend = property(parts.known_backend, parts.set_backend)

    def _get_backend(self) -> Any:
        return backends.made(self.backend_cls or self.conf.result_backend, self)

    backend = property(parts.backend)
    thread_oid = property(parts.thread_oid)

    @cached_property
    def Task(self) -> Any:
        """The class that tasks of this app have as base."""
        return self.create_task_cls()

    @cached_property
    def annotations(self) -> Any:
        """What `task_annotations` has for tasks."""
        return prepare_annotations(self.conf.task_annotations)

    @cached_property
    def loader(self) -> Any:
        """What loads settings and modules."""
        return get_loader_cls(self.loader_cls)(app=self)

    @cached_property
    def oid(self) -> Any:
        """An id of the app in this process."""
        return oid_from(self, threads=False)

    @cached_property
    def _canvas(self) -> Any:
        return upward("canvas")

    def signature(self, *args: Any, **kwargs: Any) -> Any:
        """Return a signature of this app."""
        return self._canvas.signature(*args, **{**kwargs, "app": self})

    @property
    def current_task(self) -> Any:
        """The task that runs here, or None."""
        return _task_stack.top

    @property
    def current_worker_task(self) -> Any:
        """The task that the worker runs here, or None."""
        return get_current_worker_task()

    def now(self) -> datetime:
        """Return the time, in the app's zone."""
        now, zone = to_utc(datetime.now(timezone.utc)), self.timezone
        return now if now.tzinfo is zone else now.astimezone(zone)

    @forgettable
    def timezone(self) -> Any:
        """The app's time zone."""
        conf = self.conf
        if not conf.timezone:
            return timezone.utc if conf.enable_utc else timezone.local
        return timezone.get_timezone(conf.timezone)

    def uses_utc_timezone(self) -> bool:
        """Say whether the app's time zone is UTC."""
        return bool(self.timezone == timezone.utc)

    def bugreport(self) -> str:
        """Return what a report about an error should say of versions and settings."""
        return bugreport(self)

    # ---------------------------------------------------------------- the object

    __class_getitem__: Any = classmethod(types.GenericAlias)
    __reduce_keys__, __reduce_args__ = parts.reduce_keys, parts.reduce_args

    def _rgetattr(self, path: str) -> Any:
        return attrgetter(path)(self)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {appstr(self)}>"

    def __reduce__(self) -> Any:
        if self._using_v1_reduce:
            return self.__reduce_v1__()
        return _unpickle_app_v2, (self.__class__, self.__reduce_keys__())

    def __reduce_v1__(self) -> Any:
        return _unpickle_app, (self.__class__, self.Pickler, *self.__reduce_args__())


App = Celery
