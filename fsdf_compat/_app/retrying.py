"""`task.retry`: the message of the next attempt, and what tells the tracer of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from .._engine.run import current_run
from ..exceptions import Reject, Retry
from ..utils.serialization import raise_with_context
from .context import Context

__all__ = ["actual_ignore_result", "arguments", "retry", "signature_from_request"]

_P = inspect.Parameter


def actual_ignore_result(task: Any, request: Any) -> Any:
    """Return whether nothing is stored of a run: as its message says, else as the task has it."""
    own = getattr(request, "ignore_result", None)
    if isinstance(request, Context) and "ignore_result" not in vars(request):
        own = None  # the default of every request says nothing
    return task.ignore_result if own is None else own


def signature_from_request(
    self: Any, request: Any = None, args: Any = None, kwargs: Any = None, queue: Any = None,
    **extra_options: Any,
) -> Any:  # fmt: skip
    """Return a signature for a message like the one that runs: there, with its links and limits."""
    request = self.request if request is None else request
    args = request.args if args is None else args
    kwargs = request.kwargs if kwargs is None else kwargs
    options = request.as_execution_options()
    options["ignore_result"] = actual_ignore_result(self, request)
    options.update(extra_options)
    delivery = request.delivery_info or {}
    if delivery.get("priority") is not None:
        options["priority"] = delivery["priority"]
    if queue:
        options["queue"] = queue
    elif delivery.get("exchange") == "" and delivery.get("routing_key"):
        options["queue"] = delivery["routing_key"]
    else:
        options.update(delivery)
    return self.signature(args, kwargs, options, type=self, **extra_options)


def retry(
    self: Any, args: Any = None, kwargs: Any = None, exc: Any = None, throw: bool = True,
    eta: Any = None, countdown: Any = None, max_retries: int | None = None, **options: Any,
) -> Any:  # fmt: skip
    """Send this message once more, `countdown` seconds from now or at `eta`, and raise Retry.

    Without either after `default_retry_delay` seconds. `args`, `kwargs` and the options of
    `apply_async` replace the message's. With no retry left `exc` is raised, or without it
    MaxRetriesExceededError; where the task was called as a function, the exception at hand.

    Raises:
        Retry: the message is on its way; with `throw=False` it is returned.
        Reject: it could not be sent.
    """
    request = self.request
    retries = request.retries + 1
    if max_retries is not None:
        self.override_max_retries = max_retries
    most = self.max_retries if max_retries is None else max_retries
    if request.called_directly:
        raise_with_context(exc or Retry("Task can be retried", None))
    if not eta and countdown is None:
        countdown = self.default_retry_delay
    args, kwargs = arguments(self.run, request, args, kwargs)
    changes = {"countdown": countdown, "eta": eta, "retries": retries, **options}
    signature = self.signature_from_request(request, args, kwargs, **changes)
    if most is not None and retries > most:
        _give_up(self, request, signature, exc)
    raised = Retry(exc=exc, when=eta or countdown, is_eager=request.is_eager, sig=signature)
    if not request.is_eager:
        changed = args is not None or kwargs is not None or bool(options)
        _send(self.app, signature, raised, throw, changed)
    if throw:
        raise raised
    return raised


def _send(app: Any, signature: Any, raised: Any, throw: bool, changed: bool) -> None:
    """Send the next attempt; of a worker's run that ends so it is part of the end.

    The exception then has it as `outgoings`, and says with `changed` whether it differs from this
    one in more than its time.
    """
    try:
        if throw and (run := current_run.get()) is not None:
            with app.amqp.collecting() as raised.outgoings:
                signature.apply_async()
            raised.changed = changed
            run.again = (*run.again, raised)  # it is sent, too, if the task goes on
        else:
            signature.apply_async()
    except Exception as error:
        raise Reject(error, requeue=False) from error


def _give_up(task: Any, request: Any, signature: Any, exc: Any) -> None:
    if exc:
        raise_with_context(exc)
    args, kwargs = signature.args, signature.kwargs
    raise task.MaxRetriesExceededError(
        f"Can't retry {task.name}[{request.id}] args:{args} kwargs:{kwargs}",
        task_args=args,
        task_kwargs=kwargs,
    )


def arguments(run: Any, request: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return the arguments of a retry, None for those that stay as they were.

    Where only one of both is given, a parameter that it names takes no other value from the
    message.
    """
    try:
        if args is not None and kwargs is None and request.kwargs:
            return args, _left(inspect.signature(run), args, request.kwargs)
        if kwargs is not None and args is None and request.args:
            return _replaced(inspect.signature(run), request.args, kwargs)
    except (TypeError, ValueError):  # where no signature fits, the check of the call says so
        pass
    return args, kwargs


def _left(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the named arguments that `args` leaves."""
    kinds = (_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD)
    places = [p for p in signature.parameters.values() if p.kind in kinds][: len(args)]
    taken = {p.name for p in places if p.kind is _P.POSITIONAL_OR_KEYWORD}
    return {name: value for name, value in kwargs.items() if name not in taken}


def _replaced(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return all arguments, where `kwargs` may replace positional ones."""
    bound = signature.bind_partial(*args)
    named = dict(kwargs)
    for name in kwargs.keys() & bound.arguments.keys():
        if signature.parameters[name].kind is _P.POSITIONAL_OR_KEYWORD:
            bound.arguments[name] = named.pop(name)
    return bound.args, {**bound.kwargs, **named}
