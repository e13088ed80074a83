"""Blueprints: what a worker is made of, each step after those that it requires."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event
from typing import Any

from kombu.common import ignore_errors

from .local import try_import
from .utils.graph import DependencyGraph, GraphFormatter
from .utils.imports import instantiate, qualname, symbol_by_name
from .utils.log import get_logger

__all__ = ["Blueprint", "ConsumerStep", "StartStopStep", "Step"]

_greenlet = try_import("greenlet")
IGNORE_ERRORS: Any = (_greenlet.GreenletExit,) if _greenlet else ()

RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3

logger = get_logger("celery.bootsteps")


def _label(step: Any) -> str:
    return step.name.rsplit(".", 1)[-1]


class StepFormatter(GraphFormatter):
    """Draws the steps of a blueprint."""

    blueprint_prefix = "⧉"
    conditional_prefix = "∘"
    blueprint_scheme = {
        "shape": "parallelogram",
        "color": "slategray4",
        "fillcolor": "slategray3",
    }

    def label(self, step: Any) -> Any:
        return step and self._get_prefix(step) + str(step.label or _label(step))

    def _get_prefix(self, step: Any) -> str:
        if step.last:
            return self.blueprint_prefix
        return self.conditional_prefix if step.conditional else ""

    def node(self, obj: Any, **attrs: Any) -> bytes:
        scheme = self.blueprint_scheme if obj.last else self.node_scheme
        return self.draw_node(obj, scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        if a.last:
            attrs |= {"arrowhead": "none", "color": "darkseagreen3"}
        return self.draw_edge(a, b, self.edge_scheme, attrs)


class Blueprint:
    """Steps, by class or name, that are applied to an object, started and stopped in order.

    The object, which is the `parent` of all calls, has a list `steps` of those that start.
    """

    GraphFormatter = StepFormatter
    name: Any = None
    state: int | None = None
    started = 0
    default_steps: Any = set()
    state_to_name = {0: "initializing", RUN: "running", CLOSE: "closing", TERMINATE: "terminating"}

    def __init__(
        self,
        steps: Iterable[Any] | None = None,
        name: str | None = None,
        on_start: Callable[[], object] | None = None,
        on_close: Callable[[], object] | None = None,
        on_stopped: Callable[[], object] | None = None,
    ) -> None:
        self.name = name or self.name or qualname(type(self))
        self.types = {*(steps or ()), *self.default_steps}
        self.on_start, self.on_close, self.on_stopped = on_start, on_close, on_stopped
        self.shutdown_complete = Event()
        self.steps: dict[str, Any] = {}

    def start(self, parent: Any) -> None:
        """Start the steps in order."""
        self.state = RUN
        if self.on_start:
            self.on_start()
        for number, step in enumerate((s for s in parent.steps if s is not None), 1):
            self._debug("Starting %s", step.alias)
            self.started = number
            step.start(parent)
            logger.debug("^-- substep ok")

    def human_state(self) -> str:
        """Return the name of the state."""
        return self.state_to_name[self.state or 0]

    def info(self, parent: Any) -> dict[str, Any]:
        """Return what the steps tell of themselves."""
        told: dict[str, Any] = {}
        for step in parent.steps:
            told.update(step.info(parent) or {})
        return told

    def close(self, parent: Any) -> None:
        """Let the steps take nothing new."""
        if self.on_close:
            self.on_close()
        self.send_all(parent, "close", "closing", reverse=False)

    def restart(
        self,
        parent: Any,
        method: str = "stop",
        description: str = "restarting",
        propagate: bool = False,
    ) -> None:
        """Stop the steps, the last one first."""
        self.send_all(parent, method, description, propagate=propagate)

    def send_all(
        self,
        parent: Any,
        method: str,
        description: str | None = None,
        reverse: bool = True,
        propagate: bool = True,
        args: tuple[Any, ...] = (),
    ) -> None:
        """Call a method of all steps that have it; without `propagate`, log what they raise."""
        description = description or method.replace("_", " ")
        for step in parent.steps[::-1] if reverse else parent.steps:
            call = getattr(step, method, None) if step else None
            if call is None:
                continue
            self._debug("%s %s...", description.capitalize(), step.alias)
            try:
                call(parent, *args)
            except Exception as error:
                if propagate:
                    raise
                # The others have to be stopped all the same.
                logger.exception("Error on %s %s: %r", description, step.alias, error)

    def stop(self, parent: Any, close: bool = True, terminate: bool = False) -> None:
        """Close and stop all steps, or `terminate` them. What never started is not stopped."""
        if self.state in (CLOSE, TERMINATE):
            return
        if self.state == RUN and self.started == len(parent.steps):
            self.close(parent)
            self.state = CLOSE
            method, description = (
                ("terminate", "terminating") if terminate else ("stop", "stopping")
            )
            self.restart(parent, method, description=description, propagate=False)
            if self.on_stopped:
                self.on_stopped()
        self.state = TERMINATE
        self.shutdown_complete.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of `stop`."""
        with suppress(*IGNORE_ERRORS):
            self.shutdown_complete.wait(timeout=timeout)

    def apply(self, parent: Any, **kwargs: Any) -> Blueprint:
        """Make the steps for this object, and include those that want to be.

        Raises: CycleError: steps require each other.
        """
        self._debug("Preparing bootsteps.")
        self.order: list[Any] = []
        self.steps = self.claim_steps()
        self._debug("Building graph...")
        for cls in self._finalize_steps(self.steps):
            step = cls(parent, **kwargs)
            self.steps[step.name] = step
            self.order.append(step)
        self._debug("New boot order: {%s}", ", ".join(step.alias for step in self.order))
        for step in self.order:
            step.include(parent)
        return self

    def connect_with(self, other: Blueprint) -> None:
        """Draw another blueprint as a part of this one."""
        self.graph.adjacent.update(other.graph.adjacent)
        self.graph.add_edge(type(other.order[0]), type(self.order[-1]))

    def __getitem__(self, name: str) -> Any:
        return self.steps[name]

    def _find_last(self) -> Any:
        return next((step for step in self.steps.values() if step.last), None)

    def _firstpass(self, steps: dict[str, Any]) -> None:
        """Add what is required, and what that requires."""
        waiting = deque(steps.values())
        while waiting:
            step = waiting.popleft()
            step.requires = [symbol_by_name(needed) for needed in step.requires]
            for needed in step.requires:
                if needed.name not in steps:
                    steps[needed.name] = needed
                    waiting.append(needed)

    def _finalize_steps(self, steps: dict[str, Any]) -> list[Any]:
        last = self._find_last()
        self._firstpass(steps)
        self.graph = DependencyGraph(
            ((step, step.requires) for step in steps.values()),
            formatter=self.GraphFormatter(root=last),
        )
        for step in self.graph if last else ():
            if step != last:
                self.graph.add_edge(last, step)
        return self.graph.topsort()

    def claim_steps(self) -> dict[str, Any]:
        """Return the classes by their names."""
        return dict(map(self.load_step, self.types))

    def load_step(self, step: Any) -> tuple[str, Any]:
        """Return name and class of a step."""
        cls = symbol_by_name(step)
        return cls.name, cls

    def _debug(self, msg: str, *args: Any) -> None:
        logger.debug(f"| {self.alias}: {msg}", *args)

    @property
    def alias(self) -> str:
        """The last part of the name."""
        return _label(self)


class StepType(type):
    """Names a step after the place where it is declared."""

    name: Any = None
    requires: Any = None

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> StepType:
        module = attrs.get("__module__")
        full = f"{module}.{name}" if module else name
        named = {"__qualname__": full, "name": attrs.get("name") or full}
        return super().__new__(cls, name, bases, {**attrs, **named})

    def __str__(cls) -> str:
        return cls.name

    def __repr__(cls) -> str:
        return f"step:{cls.name}{{{cls.requires!r}}}"


class Step(metaclass=StepType):
    """A part of an object, made with it: `__init__` may set attributes of the parent."""

    #: Where it is declared, unless another one is given.
    name: Any = None
    #: A short name for logs and graphs.
    label: str | None = None
    #: Whether it depends on something; graphs show it.
    conditional = False
    #: Steps of the same blueprint, by class or name, that start before.
    requires: Any = ()
    #: The one that starts after all others.
    last = False
    #: What `include_if` says unless it is overridden.
    enabled = True

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        pass

    def include_if(self, parent: Any) -> Any:
        """To be overridden: tell if the parent gets this step."""
        return self.enabled

    def instantiate(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the class that the name says."""
        return instantiate(name, *args, **kwargs)

    def _should_include(self, parent: Any) -> tuple[bool, Any]:
        return (True, self.create(parent)) if self.include_if(parent) else (False, None)

    def include(self, parent: Any) -> bool:
        """Make what this step is for, if it is included."""
        return self._should_include(parent)[0]

    def create(self, parent: Any) -> Any:
        """To be overridden: make what this step is for."""

    def __repr__(self) -> str:
        return f"<step: {self.alias}>"

    @property
    def alias(self) -> str:
        """The short name."""
        return self.label or _label(self)

    def info(self, obj: Any) -> Any:
        """To be overridden: return what `inspect stats` shows."""


class StartStopStep(Step):
    """A step that starts and stops: itself, or the object that `create` returns."""

    obj: Any = None

    def start(self, parent: Any) -> Any:
        return self.obj.start() if self.obj else None

    def stop(self, parent: Any) -> Any:
        return self.obj.stop() if self.obj else None

    def close(self, parent: Any) -> Any:
        """To be overridden: take nothing new."""

    def terminate(self, parent: Any) -> Any:
        return getattr(self.obj, "terminate", self.obj.stop)() if self.obj else None

    def include(self, parent: Any) -> bool:
        included, made = self._should_include(parent)
        if included:
            self.obj = made
            parent.steps.append(self)
        return included


class ConsumerStep(StartStopStep):
    """A step that consumes other messages of the broker, by kombu's consumers."""

    requires = ("celery.worker.consumer:Connection",)
    consumers: Any = None

    def get_consumers(self, channel: Any) -> Any:
        """To be overridden: return kombu's consumers."""
        raise NotImplementedError("missing get_consumers")

    def start(self, c: Any) -> None:
        self.consumers = self.get_consumers(c.connection.channel())
        for consumer in self.consumers or ():
            consumer.consume()

    def stop(self, c: Any) -> None:
        self._close(c, True)

    def shutdown(self, c: Any) -> None:
        """Close the channels of a connection that is gone."""
        self._close(c, False)

    def _close(self, c: Any, cancel_consumers: bool = True) -> None:
        channels = set()
        for consumer in self.consumers or ():
            if cancel_consumers:
                ignore_errors(c.connection, consumer.cancel)
            if consumer.channel:
                channels.add(consumer.channel)
        for channel in channels:
            ignore_errors(c.connection, channel.close)
