"""Maps over maps, and over attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from ..functional import first, uniq
from ..text import match_case

__all__ = [
    "AttributeDict", "AttributeDictMixin", "ChainMap", "ConfigurationView", "DictAttribute",
    "force_mapping", "lpmerge",
]  # fmt: skip

_HOME = __name__.replace("._collections.maps", ".collections")


def force_mapping(m: Any) -> Any:
    """Return a map as it is, and an object as a map of its attributes."""
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(L: Any, R: Mapping[Any, Any]) -> Any:
    """Put into `L` what is not None in `R`; return `L`."""
    for key, value in R.items():
        if value is not None:
            L[key] = value
    return L


class AttributeDictMixin:
    """Items as attributes."""

    __module__ = _HOME

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict, AttributeDictMixin):
    """A dict whose items are attributes, too."""

    __module__ = _HOME


class DictAttribute:
    """Attributes of an object as items."""

    __module__ = _HOME
    obj: Any = None

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self.obj, key, default)

    def setdefault(self, key: str, default: Any = None) -> None:
        if key not in self:
            self[key] = default

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __contains__(self, key: str) -> bool:
        return hasattr(self.obj, key)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def keys(self) -> Iterator[str]:
        return iter(self)

    def values(self) -> Iterator[Any]:
        return (getattr(self.obj, key) for key in self)

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((key, getattr(self.obj, key)) for key in self)

    iterkeys, itervalues, iteritems = keys, values, items


MutableMapping.register(DictAttribute)


class ChainMap(MutableMapping):
    """The first of several maps that has a key; changes go into the first of all.

    `key_t` is applied to each key.
    """

    __module__ = _HOME
    key_t: Any = None
    changes: Any = None
    defaults: Any = None
    maps: Any = None
    _observers: Any = ()

    def __init__(self, *maps: Any, **kwargs: Any) -> None:
        all_maps = list(maps or [{}])
        # Classes derived from it take attributes for items.
        self.__dict__.update(
            key_t=kwargs.get("key_t"),
            maps=all_maps,
            changes=all_maps[0],
            defaults=all_maps[1:],
            _observers=[],
        )

    def add_defaults(self, d: Any) -> None:
        """Ask this map after the changes, before all other defaults."""
        mapping = force_mapping(d)
        self.defaults.insert(0, mapping)
        self.maps.insert(1, mapping)

    def bind_to(self, callback: Callable[..., Any]) -> None:
        """Call it with the arguments of each `update`."""
        self._observers.append(callback)

    def _key(self, key: Any) -> Any:
        return key if self.key_t is None else self.key_t(key)

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __getitem__(self, key: Any) -> Any:
        wanted = self._key(key)
        for mapping in self.maps:
            try:
                return mapping[wanted]
            except KeyError:
                pass
        return self.__missing__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[self._key(key)] = value

    def __delitem__(self, key: Any) -> None:
        try:
            del self.changes[self._key(key)]
        except KeyError:
            raise KeyError(f"Key not found in first mapping: {key!r}") from None

    def pop(self, key: Any, *default: Any) -> Any:
        try:
            return self.maps[0].pop(self._key(key), *default)
        except KeyError:
            raise KeyError(f"Key not found in the first mapping: {key!r}") from None

    def clear(self) -> None:
        """Forget the changes."""
        self.changes.clear()

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]
        except KeyError:
            return default

    def setdefault(self, key: Any, default: Any = None) -> None:
        if key not in self:
            self[key] = default

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Change items, and tell those that are bound."""
        told = tuple(map(dict, args))  # pairs can be read once, and are told as a dict
        self.changes.update(*told, **kwargs)
        for callback in self._observers:
            callback(*told, **kwargs)

    def __len__(self) -> int:
        return len(set().union(*self.maps))

    def __bool__(self) -> bool:
        return any(self.maps)

    def __contains__(self, key: Any) -> bool:
        wanted = self._key(key)
        return any(wanted in mapping for mapping in self.maps)

    def __iter__(self) -> Iterator[Any]:
        # Keys of defaults come first.
        return uniq(key for mapping in reversed(self.maps) for key in mapping)

    def keys(self) -> Any:
        return iter(self)

    def values(self) -> Any:
        return (self[key] for key in self)

    def items(self) -> Any:
        return ((key, self[key]) for key in self)

    iterkeys, itervalues, iteritems = keys, values, items

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.maps))})"

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], *args: Any) -> ChainMap:
        """Return one over a dict with these keys."""
        return cls(dict.fromkeys(iterable, *args))

    def copy(self) -> Any:
        """Return one with changes of its own."""
        return type(self)(self.maps[0].copy(), *self.maps[1:])

    def __copy__(self) -> Any:
        return self.copy()


class ConfigurationView(ChainMap, AttributeDictMixin):
    """Settings: changes over defaults, with names that may lack their prefix.

    `keys` are functions, each of which gives another name under which a key may stand.
    """

    __module__ = _HOME

    def __init__(
        self, changes: Any, defaults: Any = None, keys: Any = None, prefix: str | None = None
    ) -> None:
        super().__init__(changes, *(defaults or ()))
        self.__dict__.update(prefix=prefix and f"{prefix.rstrip('_')}_", _keys=keys)

    def copy(self) -> Any:
        copied = type(self)(self.changes.copy(), self.defaults, self._keys, self.prefix)
        copied.__dict__["key_t"] = self.key_t
        return copied

    def _to_keys(self, key: str) -> tuple[str, ...]:
        others = tuple(f(key) for f in self._keys or ())
        if not self.prefix:
            return (key, *others)
        full = key if key.startswith(self.prefix) else self.prefix + key
        return (match_case(full, self.prefix), key, *others)

    def __getitem__(self, key: str) -> Any:
        names = self._to_keys(key)
        for mapping in self.maps:
            for name in names:
                try:
                    return mapping[self._key(name)]
                except KeyError:
                    pass
        try:
            return self.__missing__(key)
        except KeyError:
            if not self.prefix:
                raise
            raise KeyError(f"Key not found: {names[1]!r} (with prefix: {names[0]!r})") from None

    def __contains__(self, key: Any) -> bool:
        contains = super().__contains__
        return any(contains(name) for name in self._to_keys(key))

    def first(self, *keys: str) -> Any:
        """Return the first value that is not None."""
        return first(None, map(self.get, keys))

    def swap_with(self, other: ConfigurationView) -> None:
        """Take everything over from another one."""
        theirs = other.__dict__
        names = ("changes", "defaults", "key_t", "prefix", "_keys")
        self.__dict__.update({name: theirs[name] for name in names})
        self.__dict__["maps"] = [theirs["changes"], *theirs["defaults"]]
