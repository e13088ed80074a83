"""What happens, told to whoever connects to it: `@task_prerun.connect`.

Each signal's first argument is `sender`; the others are in `providing_args`, always by keyword.
Of a receiver that raises, the traceback is logged.
"""

from __future__ import annotations

from .utils.dispatch import Signal

__all__ = [
    "before_task_publish", "after_task_publish", "task_internal_error", "task_prerun",
    "task_postrun", "task_success", "task_received", "task_rejected", "task_unknown",
    "task_retry", "task_failure", "task_revoked", "celeryd_init", "celeryd_after_setup",
    "worker_init", "worker_before_create_process", "worker_process_init",
    "worker_process_shutdown", "worker_ready", "worker_shutdown", "worker_shutting_down",
    "setup_logging", "after_setup_logger", "after_setup_task_logger", "beat_init",
    "beat_embedded_init", "heartbeat_sent", "eventlet_pool_started",
    "eventlet_pool_preshutdown", "eventlet_pool_postshutdown", "eventlet_pool_apply",
]  # fmt: skip


def _signal(name: str, *arguments: str) -> Signal:
    return Signal(name=name, providing_args=set(arguments))


# Who publishes.
before_task_publish = _signal(
    "before_task_publish", "body", "exchange", "routing_key", "headers", "properties", "declare",
    "retry_policy",
)  # fmt: skip
after_task_publish = _signal("after_task_publish", "body", "exchange", "routing_key")
task_sent = _signal("task_sent", "task_id", "task", "args", "kwargs", "eta", "taskset")

# A message at the worker.
task_received = _signal("task_received", "request")
task_rejected = _signal("task_rejected", "message", "exc")
task_unknown = _signal("task_unknown", "message", "exc", "name", "id")
task_revoked = _signal("task_revoked", "request", "terminated", "signum", "expired")

# A run.
task_prerun = _signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = _signal("task_postrun", "task_id", "task", "args", "kwargs", "retval")
task_success = _signal("task_success", "result", "runtime")
task_retry = _signal("task_retry", "request", "reason", "einfo")
task_failure = _signal(
    "task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo"
)
task_internal_error = _signal(
    "task_internal_error", "task_id", "args", "kwargs", "request", "exception", "traceback",
    "einfo",
)  # fmt: skip

# A worker, and its children.
celeryd_init = _signal("celeryd_init", "instance", "conf", "options")
celeryd_after_setup = _signal("celeryd_after_setup", "instance", "conf")
import_modules = _signal("import_modules")
worker_init = _signal("worker_init")
worker_before_create_process = _signal("worker_before_create_process")
worker_process_init = _signal("worker_process_init")
worker_process_shutdown = _signal("worker_process_shutdown")
worker_ready = _signal("worker_ready")
worker_shutting_down = _signal("worker_shutting_down")
worker_shutdown = _signal("worker_shutdown")
heartbeat_sent = _signal("heartbeat_sent")
eventlet_pool_started = _signal("eventlet_pool_started")
eventlet_pool_preshutdown = _signal("eventlet_pool_preshutdown")
eventlet_pool_postshutdown = _signal("eventlet_pool_postshutdown")
eventlet_pool_apply = _signal("eventlet_pool_apply", "target", "args", "kwargs")

# Logging: a receiver of the first one does it all by itself.
setup_logging = _signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = _signal(
    "after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize"
)
after_setup_task_logger = _signal(
    "after_setup_task_logger", "logger", "loglevel", "logfile", "format", "colorize"
)

# Beat, and commands.
beat_init = _signal("beat_init")
beat_embedded_init = _signal("beat_embedded_init")
user_preload_options = _signal("user_preload_options", "app", "options")
