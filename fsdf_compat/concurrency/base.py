"""What all pools have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar

from .._engine.serving import serve
from ..utils import timer2
from ..utils.log import get_logger

__all__ = ("BasePool",)
logger = get_logger("celery.pool")


class BasePool:
    """Where a worker's runs are: the engine's pool of a mode, made when it starts.

    `engine_pool` is that one; it is shared by all queues.
    """

    RUN, CLOSE, TERMINATE = 0x1, 0x2, 0x3
    Timer = timer2.Timer
    mode: ClassVar[str] = ""  # the engine's name of such pools
    signal_safe = True
    is_green = False
    uses_semaphore = False
    task_join_will_block = True
    body_can_be_buffer = False
    _state: int | None = None

    def __init__(
        self, limit: int | None = None, putlocks: bool = True, forking_enable: bool = True,
        callbacks_propagate: Any = (), app: Any = None, **options: Any,
    ) -> None:  # fmt: skip
        self.limit, self.putlocks, self.app, self.options = limit, putlocks, app, options
        self.forking_enable, self.callbacks_propagate = forking_enable, callbacks_propagate
        self.engine_pool: Any = None
        self.has_main_thread = False  # its owner's, who comes to `serve` once it has started
        self.serve: Callable[[], None] | None = None

    def start(self) -> None:
        """Make it ready for runs."""
        self.on_start()
        self._state = self.RUN

    def on_start(self) -> None:
        """Make the engine's pool."""
        size = self.limit or os.cpu_count() or 1
        self.engine_pool = serve(self.app).pool(self.mode, size, **self.engine_options())
        self.serve = self.engine_pool.lend() if self.has_main_thread else None

    def keep(self, least: int, seconds: float) -> None:
        """Before it starts: let what was idle for so long end, while more than `least` are left."""
        self.options.update(least=least, keep_alive=seconds)

    def thinning(self) -> str:
        """Say for the log what of it ends when it is idle."""
        return "those that were idle for a minute end"

    def engine_options(self) -> dict[str, Any]:
        """Return what the engine's pool of this mode is told besides."""
        return {}

    def stop(self) -> None:
        """End it; what runs has ended by now, or is not waited for."""
        self._state = self.TERMINATE
        self.on_stop()

    def on_stop(self) -> None:
        """Close the engine's pool."""
        if self.engine_pool is not None:
            self.engine_pool.close(0.0)

    def terminate(self) -> None:
        """End it at once."""
        self._state = self.TERMINATE
        self.on_terminate()

    on_terminate = on_stop

    def close(self) -> None:
        """Take no more."""
        self._state = self.CLOSE

    def did_start_ok(self) -> bool:
        """Say whether it could start."""
        return True

    def flush(self) -> None:
        """Nothing waits here."""

    def register_with_event_loop(self, loop: Any) -> None:
        """Nothing of it is in a loop of somebody else's."""

    def maintain_pool(self, *args: Any, **kwargs: Any) -> None:
        """It maintains itself."""

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Signal the process of a run, where it has one of its own."""
        raise NotImplementedError(f"{type(self)} does not implement kill_job")

    def restart(self) -> None:
        """Start all processes anew, where there are some."""
        raise NotImplementedError(f"{type(self)} does not implement restart")

    def apply_async(self, target: Any, args: Any = None, kwargs: Any = None, **_: Any) -> Any:
        """Refuse what is no message: runs are the engine's."""
        raise NotImplementedError(f"{type(self)} runs the messages of the engine only")

    def _get_info(self) -> dict[str, Any]:
        kind = type(self)
        name = f"{kind.__module__}:{kind.__name__}"
        return {"implementation": name, "max-concurrency": self.limit}

    @property
    def info(self) -> dict[str, Any]:
        """What `inspect stats` shows of it."""
        return self._get_info()

    @property
    def active(self) -> bool:
        """Say whether it takes runs."""
        return self._state == self.RUN

    @property
    def num_started(self) -> int | None:
        """How many slots there are now, where that is known; else as many as there can be."""
        return self.limit

    @property
    def num_processes(self) -> int | None:
        """How many runs there can be at once."""
        return self.limit
