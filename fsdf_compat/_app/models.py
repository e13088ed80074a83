"""The option `pydantic=True`: models as arguments and as results."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._upward import upward
from ..exceptions import ImproperlyConfigured
from ..utils.annotations import annotation_is_class, annotation_issubclass, get_optional_arg

__all__ = ["pydantic_wrapper"]
_P = inspect.Parameter


class _Models:
    """Which of a function's parameters are models, and how values become these and back."""

    def __init__(
        self, base: type, fun: Callable[..., Any], strict: bool, context: Mapping[str, Any],
        dump: Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.base, self.strict, self.context = base, strict, context
        self.dump_kwargs = {"mode": "json", **dump}
        self.signature = inspect.signature(fun)
        try:
            self.hints = typing.get_type_hints(fun)
        except (NameError, AttributeError, TypeError):  # what they name is not there, or not yet
            self.hints = {}
        kinds = {name: p.kind for name, p in self.signature.parameters.items()}
        plain = _P.POSITIONAL_OR_KEYWORD
        self.positional = [n for n, k in kinds.items() if k in (_P.POSITIONAL_ONLY, plain)]
        self.named = {n for n, k in kinds.items() if k in (plain, _P.KEYWORD_ONLY)}

    def of(self, name: str, value: Any) -> Any:
        """Return the model that an argument is to be, or None."""
        hint = self.hints.get(name, self.signature.parameters[name].annotation)
        inner = get_optional_arg(hint)
        hint = inner if inner is not None and value is not None else hint
        return hint if annotation_issubclass(hint, self.base) else None

    def validated(self, model: Any, value: Any) -> Any:
        """Return a value as a model."""
        return model.model_validate(value, strict=self.strict, context=dict(self.context))

    def bound(self, args: Any, kwargs: Any) -> inspect.BoundArguments:
        """Return a call with models where the function names them."""
        call = self.signature.bind(*args, **kwargs)
        for name, value in call.arguments.items():
            if (model := self.of(name, value)) is not None:
                call.arguments[name] = self.validated(model, value)
        return call

    def returned(self, value: Any) -> Any:
        """Return a result as it travels: a model of the class that is promised as a dict."""
        hint = self.hints.get("return", self.signature.return_annotation)
        inner = get_optional_arg(hint)
        hint = hint if inner is None else inner
        if isinstance(value, self.base) and annotation_is_class(hint) and isinstance(value, hint):
            return value.model_dump(**self.dump_kwargs)  # type: ignore[attr-defined]
        return value

    def dumped(self, name: str | None, value: Any) -> Any:
        """Return an argument as it travels, if the same model comes out of it again."""
        if name is None or not isinstance(value, self.base) or hasattr(type(value), "__json__"):
            return value
        if (model := self.of(name, value)) is None:
            return value
        try:
            dump = value.model_dump(**self.dump_kwargs)  # type: ignore[attr-defined]
            return dump if self.validated(model, dump) == value else value
        except Exception:  # what only a worker can do; the serializer then says what is wrong
            return value

    def dump_arguments(self, args: Any, kwargs: Any, bound: bool = False) -> tuple[Any, Any]:
        """Return the arguments of a call as they travel; without models as they are."""
        given: Sequence[Any] = () if args is None else args
        named: Mapping[str, Any] = {} if kwargs is None else kwargs
        if not isinstance(given, (list, tuple)) or not isinstance(named, Mapping):
            return args, kwargs
        if not any(isinstance(value, self.base) for value in (*given, *named.values())):
            return args, kwargs
        try:
            self.signature.bind(*([None] if bound else []), *given, **named)
        except TypeError:  # the run will say so
            return args, kwargs
        names = dict(enumerate(self.positional[1:] if bound else self.positional))
        new = [self.dumped(names.get(n), value) for n, value in enumerate(given)]
        changed = {k: self.dumped(k if k in self.named else None, v) for k, v in named.items()}
        if any(one is not other for one, other in zip(new, given)):
            args = new if isinstance(given, list) else tuple(new)
        if any(changed[key] is not value for key, value in named.items()):
            kwargs = changed
        return args, kwargs


def pydantic_wrapper(
    app: Any, task_fun: Callable[..., Any], task_name: str, strict: bool = True,
    context: Mapping[str, Any] | None = None, dump_kwargs: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Return a function that gets models where it names them, and whose models become dicts.

    Raises:
        ImproperlyConfigured: pydantic is not installed.
    """
    try:
        pydantic = upward("app.base").importlib.import_module("pydantic")
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            "You need to install pydantic to use pydantic model serialization."
        ) from error
    told = {**(context or {}), "celery_app": app, "celery_task_name": task_name}
    models = _Models(pydantic.BaseModel, task_fun, strict, told, dump_kwargs or {})

    if inspect.iscoroutinefunction(task_fun):

        @functools.wraps(task_fun)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = models.bound(args, kwargs)
            return models.returned(await task_fun(*call.args, **call.kwargs))

    else:

        @functools.wraps(task_fun)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = models.bound(args, kwargs)
            return models.returned(task_fun(*call.args, **call.kwargs))

    wrapper.dump_arguments = models.dump_arguments  # type: ignore[attr-defined]
    return wrapper
