"""Proxies: what stands for an object that is looked up, or made, when it is used."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["PromiseProxy", "Proxy", "maybe_evaluate", "try_import"]


_HOME = __name__.replace("._local.proxy", ".local")


def try_import(module: str, default: Any = None) -> Any:
    """Return the module, or `default` where it is not to be had."""
    try:
        return import_module(module)
    except ImportError:
        return default


class _Named(str):
    """A text for whoever asks the class, and the object's own for whoever asks the proxy.

    `__name__`, `__module__` and `__doc__` of a class have to be texts.
    """

    getter: Callable[[Any], Any]

    def __new__(cls, text: str, getter: Callable[[Any], Any]) -> _Named:
        made = super().__new__(cls, text)
        made.getter = getter
        return made

    def __get__(self, obj: Any, cls: Any = None) -> Any:
        return self if obj is None else self.getter(obj)


def _forwarded(name: str) -> Callable[[Any], Any]:
    def read(proxy: Any) -> Any:
        if name in ("__name__", "__qualname__"):
            try:
                return object.__getattribute__(proxy, "__custom_name__")
            except AttributeError:
                pass
        return getattr(proxy._get_current_object(), name)

    return read


def _operation(function: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, *args: Any) -> Any:
        return function(self._get_current_object(), *args)

    return forward


class Proxy:
    """Stands for what `local(*args, **kwargs)` returns, which is asked at each use.

    `local` may also be an object with `__release_local__`: then its attribute `name` is meant.
    """

    __slots__ = ("__local", "__args", "__kwargs", "__dict__")

    def __init__(
        self,
        local: Any,
        args: tuple[Any, ...] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        name: Any = None,
        __doc__: str | None = None,
    ) -> None:
        keep = object.__setattr__
        keep(self, "_Proxy__local", local)
        keep(self, "_Proxy__args", args or ())
        keep(self, "_Proxy__kwargs", kwargs or {})
        if name is not None:
            keep(self, "__custom_name__", name)
        if __doc__ is not None:
            keep(self, "__doc__", __doc__)

    __name__ = _Named("Proxy", _forwarded("__name__"))
    __qualname__ = _Named("Proxy", _forwarded("__qualname__"))
    __module__ = _Named(_HOME, _forwarded("__module__"))
    __doc__ = _Named(__doc__, _forwarded("__doc__"))

    def _get_class(self) -> Any:
        return self._get_current_object().__class__

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._get_class()

    def _get_current_object(self) -> Any:
        """Return the object itself."""
        local = object.__getattribute__(self, "_Proxy__local")
        if not hasattr(local, "__release_local__"):
            return local(*self.__args, **self.__kwargs)
        try:
            return getattr(local, self.__name__)
        except AttributeError:
            raise RuntimeError(f"no object bound to {self.__name__}") from None

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        try:
            return self._get_current_object().__dict__
        except RuntimeError:
            raise AttributeError("__dict__") from None

    def __repr__(self) -> str:
        try:
            return repr(self._get_current_object())
        except RuntimeError:
            return f"<{type(self).__name__} unbound>"

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:
            return False

    def __dir__(self) -> list[str]:
        try:
            return dir(self._get_current_object())
        except RuntimeError:
            return []

    def __getattr__(self, name: str) -> Any:
        current = self._get_current_object()
        return dir(current) if name == "__members__" else getattr(current, name)

    def __call__(self, *a: Any, **kw: Any) -> Any:
        return self._get_current_object()(*a, **kw)

    def __enter__(self) -> Any:
        return self._get_current_object().__enter__()

    def __exit__(self, *a: Any, **kw: Any) -> Any:
        return self._get_current_object().__exit__(*a, **kw)

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    __setattr__ = _operation(setattr)
    __delattr__ = _operation(delattr)
    __setitem__ = _operation(operator.setitem)
    __delitem__ = _operation(operator.delitem)
    __getitem__ = _operation(operator.getitem)
    __contains__ = _operation(operator.contains)
    __iter__ = _operation(iter)
    __len__ = _operation(len)
    __hash__ = _operation(hash)
    __str__ = _operation(str)
    __int__ = _operation(int)
    __float__ = _operation(float)
    __complex__ = _operation(complex)
    __index__ = _operation(operator.index)
    __lt__ = _operation(operator.lt)
    __le__ = _operation(operator.le)
    __eq__ = _operation(operator.eq)
    __ne__ = _operation(operator.ne)
    __gt__ = _operation(operator.gt)
    __ge__ = _operation(operator.ge)
    __add__ = _operation(operator.add)
    __sub__ = _operation(operator.sub)
    __mul__ = _operation(operator.mul)
    __truediv__ = _operation(operator.truediv)
    __floordiv__ = _operation(operator.floordiv)
    __mod__ = _operation(operator.mod)
    __divmod__ = _operation(divmod)
    __pow__ = _operation(pow)
    __lshift__ = _operation(operator.lshift)
    __rshift__ = _operation(operator.rshift)
    __and__ = _operation(operator.and_)
    __xor__ = _operation(operator.xor)
    __or__ = _operation(operator.or_)
    __neg__ = _operation(operator.neg)
    __pos__ = _operation(operator.pos)
    __abs__ = _operation(abs)
    __invert__ = _operation(operator.invert)


class PromiseProxy(Proxy):
    """Stands for what is made at the first use, and kept."""

    __slots__ = ("__pending__", "__weakref__")

    # A class body sets these anew.
    __qualname__ = _Named("PromiseProxy", _forwarded("__qualname__"))
    __module__ = _Named(_HOME, _forwarded("__module__"))
    __doc__ = _Named(__doc__, _forwarded("__doc__"))

    def _get_current_object(self) -> Any:
        try:
            return object.__getattribute__(self, "__thing")
        except AttributeError:
            return self.__evaluate__()

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `fun` when the object has been made: at once, if it has."""
        if self.__evaluated__():
            return fun(*args, **kwargs)
        self._waiting().append((fun, args, kwargs))
        return None

    def _waiting(self) -> deque[Any]:
        try:
            return object.__getattribute__(self, "__pending__")
        except AttributeError:
            pending: deque[Any] = deque()
            object.__setattr__(self, "__pending__", pending)
            return pending

    def __evaluated__(self) -> bool:
        try:
            object.__getattribute__(self, "__thing")
        except AttributeError:
            return False
        return True

    def __maybe_evaluate__(self) -> Any:
        return self._get_current_object()

    def __evaluate__(
        self, _clean: tuple[str, ...] = ("_Proxy__local", "_Proxy__args", "_Proxy__kwargs")
    ) -> Any:
        thing = Proxy._get_current_object(self)
        object.__setattr__(self, "__thing", thing)
        for name in _clean:  # what it was made from need not be kept alive
            try:
                object.__delattr__(self, name)
            except AttributeError:  # another thread was first
                pass
        pending: Any = ()
        try:
            pending = object.__getattribute__(self, "__pending__")
            object.__delattr__(self, "__pending__")
        except AttributeError:  # nobody waits, or another thread calls them
            pass
        while pending:
            fun, args, kwargs = pending.popleft()
            fun(*args, **kwargs)
        return thing


def maybe_evaluate(obj: Any) -> Any:
    """Return what a promise stands for; anything else as it is."""
    try:
        return obj.__maybe_evaluate__()
    except AttributeError:
        return obj
