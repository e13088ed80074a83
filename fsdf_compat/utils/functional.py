"""Small functions over functions and sequences, some of them kombu's."""

from __future__ import annotations

import inspect
import operator
import sys
from collections import UserList
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from kombu.utils.functional import (
    LRUCache,
    dictfilter,
    is_list,
    lazy,
    maybe_evaluate,
    maybe_list,
    memoize,
)
from vine import promise

from .log import get_logger

__all__ = [
    "LRUCache", "is_list", "maybe_list", "memoize", "mlazy", "noop", "first", "firstmethod",
    "chunks", "padlist", "mattrgetter", "uniq", "regen", "dictfilter", "lazy", "maybe_evaluate",
    "head_from_fun", "maybe", "fun_accepts_kwargs",
]  # fmt: skip

logger = get_logger("celery.utils.functional")


class DummyContext:
    """A context that does nothing."""

    def __enter__(self) -> DummyContext:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass


class mlazy(lazy):
    """A `lazy` that calls its function once."""

    evaluated = False
    _value: Any = None

    def evaluate(self) -> Any:
        if not self.evaluated:
            self._value, self.evaluated = super().evaluate(), True
        return self._value


def noop(*args: Any, **kwargs: Any) -> None:
    """Take anything and do nothing."""


def pass1(arg: Any, *args: Any, **kwargs: Any) -> Any:
    """Return the first argument."""
    return arg


def evaluate_promises(it: Iterable[Any]) -> Iterator[Any]:
    """Yield the items, and of those that are promises what they give."""
    return (value() if isinstance(value, promise) else value for value in it)


def first(predicate: Callable[[Any], Any] | None, it: Iterable[Any]) -> Any:
    """Return the first item that `predicate` accepts (None: that is not None), else None."""
    accepts = predicate or (lambda value: value is not None)
    return next(filter(accepts, evaluate_promises(it)), None)


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Return a function of objects: the first answer of their `method` that is not None."""

    def ask(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for entry in it:
            bound = getattr(maybe_evaluate(entry), method, None)
            if bound is None:
                continue
            answer = on_call(bound, *args, **kwargs) if on_call else bound(*args, **kwargs)
            if answer is not None:
                return answer
        return None

    return ask


def chunks(it: Iterator[Any], n: int) -> Iterator[list[Any]]:
    """Yield lists of `n` items, the last one shorter. `it` has to be an iterator."""
    for item in it:
        yield [item, *islice(it, n - 1)]


def padlist(container: Sequence[Any], size: int, default: Any = None) -> list[Any]:
    """Return the first `size` items, filled up with `default`."""
    items = list(container)[:size]
    return items + [default] * (size - len(items))


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """Return a function that reads these attributes; one that is missing is None."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def uniq(it: Iterable[Any]) -> Iterator[Any]:
    """Yield each item once, in order."""
    seen = set()
    for item in it:
        if item not in seen:
            seen.add(item)
            yield item


def lookahead(it: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each item with the one after it, the last one with None."""
    items = iter(it)
    for current in items:
        for following in items:
            yield current, following
            current = following
        yield current, None


def regen(it: Any) -> Any:
    """Return lists and tuples as they are; else a list that takes from `it` when it is read."""
    return it if isinstance(it, (list, tuple)) else _regen(it)


class _regen(UserList, list):  # type: ignore[misc]
    """A list for whoever asks (also for JSON) that takes its items from an iterator when they are
    read, one ahead, so that it knows its end with the last one.
    """

    def __init__(self, it: Iterable[Any]) -> None:
        # Neither base is initialised: `data` is made here.
        self.__source = it
        self.__cursor: Iterator[Any] | None = None
        self.__taken: list[Any] = []
        self.__done = False

    def __pull(self) -> bool:
        if self.__cursor is None:
            self.__cursor = iter(self.__source)
        for item in self.__cursor:
            self.__taken.append(item)
            return True
        self.__done = True
        return False

    def __reduce__(self) -> Any:
        return list, (self.data,)

    def map(self, func: Callable[[Any], Any]) -> None:
        """Apply `func` to what was taken, and to what comes."""
        self.__taken = [func(item) for item in self.__taken]
        self.__source = map(func, self.__source if self.__cursor is None else self.__cursor)
        self.__cursor = None

    def __length_hint__(self) -> int:
        return operator.length_hint(self.__source if self.__cursor is None else self.__cursor)

    def __iter__(self) -> Iterator[Any]:
        index, pulled = 0, False
        while True:
            if index >= len(self.__taken):
                if self.__done:
                    return
                pulled = self.__pull()
                continue  # also what the source's own code took meanwhile
            try:
                # What was taken before is given without a look ahead: headers of chords are lazy.
                if pulled and not self.__done and index + 1 == len(self.__taken):
                    self.__pull()
            finally:
                yield self.__taken[index]
            index += 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) or (index := operator.index(index)) < 0:
            return self.data[index]
        if index >= len(self.__taken):
            while not self.__done and index + 1 >= len(self.__taken):
                self.__pull()
        return self.__taken[index]

    def __bool__(self) -> bool:
        return any(True for _ in self)

    @property
    def data(self) -> list[Any]:  # type: ignore[override]
        """All items."""
        while not self.__done:
            self.__pull()
        return self.__taken

    def __repr__(self) -> str:
        items = ", ".join(map(repr, self.__taken))
        return f"<{type(self).__name__}: [{items}{'' if self.__done else '...'}]>"


def _signature(fun: Callable[..., Any]) -> inspect.Signature:
    # Of the callable itself, not of what it wraps: its own parameters are what callers meet.
    fun = getattr(fun, "__func__", fun)
    if sys.version_info < (3, 14):
        return inspect.signature(fun, follow_wrapped=False)
    import annotationlib  # type: ignore[import-not-found] # annotations may name what is imported for types only

    return inspect.signature(
        fun, follow_wrapped=False, annotation_format=annotationlib.Format.STRING
    )


def _head(parameters: Iterable[inspect.Parameter]) -> str:
    """Return the text of a parameter list; a default is there, its value is not told."""
    texts, kind_before = [], None
    for parameter in parameters:
        kind = parameter.kind
        if kind_before is parameter.POSITIONAL_ONLY and kind is not kind_before:
            texts.append("/")
        if kind is parameter.KEYWORD_ONLY and kind_before not in (kind, parameter.VAR_POSITIONAL):
            texts.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(kind.name, "")
        default = "" if parameter.default is parameter.empty else "=None"
        texts.append(f"{stars}{parameter.name}{default}")
        kind_before = kind
    return ", ".join([*texts, "/"] if kind_before is inspect.Parameter.POSITIONAL_ONLY else texts)


def head_from_fun(fun: Callable[..., Any], bound: bool = False) -> Callable[..., Any]:
    """Return a function with the parameters of `fun` that does nothing: a call checks arguments.

    `bound` gives it an object as the first one.
    """
    if not hasattr(fun, "__name__"):  # an instance
        fun = type(fun).__call__
    name = fun.__name__ if fun.__name__.isidentifier() else "head"
    # Compiled: binding by `inspect.Signature` takes ten times as long, and every call is checked.
    source = f"def {name}({_head(_signature(fun).parameters.values())}):\n    return 1\n"
    namespace: dict[str, Any] = {"__name__": fun.__module__}
    exec(source, namespace)
    head = namespace[name]
    head._source = source
    return partial(head, object()) if bound else head


def arity_greater(fun: Callable[..., Any], n: int) -> bool:
    """Tell if `fun` takes more than `n` arguments by position."""
    spec = inspect.getfullargspec(fun)
    return bool(spec.varargs) or len(spec.args) > n


def fun_takes_argument(name: str, fun: Callable[..., Any], position: int | None = None) -> bool:
    """Tell if `fun` takes an argument of this name, or at this position."""
    spec = inspect.getfullargspec(fun)
    if spec.varkw or spec.varargs:
        return True
    return len(spec.args) >= position if position else name in spec.args


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """Tell if `fun` takes any keyword argument."""
    code = getattr(fun, "__code__", None)
    if code is not None:
        return bool(code.co_flags & inspect.CO_VARKEYWORDS)
    kinds = {parameter.kind for parameter in inspect.signature(fun).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def maybe(typ: Callable[[Any], Any], val: Any) -> Any:
    """Call `typ` with the value; None stays None."""
    return None if val is None else typ(val)


def seq_concat_item(seq: Any, item: Any) -> Any:
    """Return a copy of a tuple or list with one item more."""
    return (*seq, item) if isinstance(seq, tuple) else seq + [item]


def seq_concat_seq(a: Any, b: Any) -> Any:
    """Return both in one, of the type of the longer."""
    type_ = type(b if len(b) > len(a) else a)
    a, b = (part if isinstance(part, type_) else type_(part) for part in (a, b))
    return a + b


def is_numeric_value(value: Any) -> bool:
    """Tell if it is an int or a float; a bool is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
