"""Graphs of what needs what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from textwrap import dedent
from typing import Any

from kombu.utils.encoding import bytes_to_str, safe_str

__all__ = ["DOT", "CycleError", "DependencyGraph", "GraphFormatter"]


class DOT:
    """The forms of Graphviz' language."""

    HEAD = dedent("""
        {IN}{type} {id} {{
        {INp}graph [{attrs}]
    """)
    ATTR = "{name}={value}"
    NODE = '{INp}"{0}" [{attrs}]'
    EDGE = '{INp}"{0}" {dir} "{1}" [{attrs}]'
    ATTRSEP = ", "
    DIRS = {"graph": "--", "digraph": "->"}
    TAIL = "{IN}}}"


class DependencyGraph:
    """Nodes, each with those that it needs. `it` yields (node, what it needs)."""

    def __init__(self, it: Iterable[tuple[Any, Any]] | None = None, formatter: Any = None) -> None:
        self.formatter = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        if it is not None:
            self.update(it)

    def add_arc(self, obj: Any) -> None:
        """Add a node, if it is not there."""
        self.adjacent.setdefault(obj, [])

    def add_edge(self, A: Any, B: Any) -> None:
        """Say that A, which is there, needs B."""
        self[A].append(B)

    def connect(self, graph: DependencyGraph) -> None:
        """Take the nodes of another graph over."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Any]]) -> None:
        """Add (node, what it needs) pairs."""
        pairs = list(it)
        for obj, _ in pairs:
            self.add_arc(obj)
        for obj, needed in pairs:
            for other in needed:
                self.add_edge(obj, other)

    def topsort(self) -> list[Any]:
        """Return the nodes, each after all that it needs.

        Raises: CycleError: there is no such order.
        """
        return list(TopologicalSorter(self.adjacent).static_order())

    def valency_of(self, obj: Any) -> int:
        """Return how many edges lead away from a node, and from all that it leads to."""
        needed = self.adjacent.get(obj, ())
        return len(needed) + sum(map(self.valency_of, needed))

    def edges(self) -> Iterator[Any]:
        """Return the nodes that need others."""
        return (obj for obj, needed in self.items() if needed)

    def to_dot(self, fh: Any, formatter: Any = None) -> None:
        """Write the graph to a file, in Graphviz' language."""
        draw = formatter or self.formatter
        seen: set[Any] = set()

        def node(kind: Any, obj: Any) -> None:
            label = draw.label(obj)
            if label not in seen:
                print(bytes_to_str(kind(obj)), file=fh)
                seen.add(label)

        print(bytes_to_str(draw.head()), file=fh)
        for obj, needed in self.items():
            if not needed:
                node(draw.terminal_node, obj)
            for other in needed:
                node(draw.node, obj)
                print(bytes_to_str(draw.edge(obj, other)), file=fh)
        print(bytes_to_str(draw.tail()), file=fh)

    def format(self, obj: Any) -> Any:
        formatter: Any = self.formatter
        return formatter(obj) if formatter else obj

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __len__(self) -> int:
        return len(self.adjacent)

    def __contains__(self, obj: Any) -> bool:
        return obj in self.adjacent

    def items(self) -> Any:
        return self.adjacent.items()

    iteritems = items

    def __repr__(self) -> str:
        return "\n".join(self.repr_node(node) for node in self)

    def repr_node(self, obj: Any, level: int = 1, fmt: str = "{0}({1})") -> str:
        """Return a node with all that it needs, a line each, indented by level."""
        lines = [fmt.format(obj, self.valency_of(obj))]
        for other in self.adjacent.get(obj, ()):
            first, *others = self.repr_node(other, level + 1, fmt).split("\n")
            lines += ["     " * level + first, *others]
        return "\n".join(lines)


class GraphFormatter:
    """How nodes and edges are drawn; `**scheme` are attributes of all."""

    _attr = DOT.ATTR
    _node = DOT.NODE
    _edge = DOT.EDGE
    _head = DOT.HEAD.strip()
    _tail = DOT.TAIL
    _attrsep = DOT.ATTRSEP
    _dirs = dict(DOT.DIRS)

    scheme: dict[str, Any] = {
        "shape": "box",
        "arrowhead": "vee",
        "style": "filled",
        "fontname": "HelveticaNeue",
    }
    edge_scheme: dict[str, Any] = {
        "color": "darkseagreen4",
        "arrowcolor": "black",
        "arrowsize": 0.7,
    }
    node_scheme: dict[str, Any] = {"fillcolor": "palegreen3", "color": "palegreen4"}
    term_scheme: dict[str, Any] = {"fillcolor": "palegreen1", "color": "palegreen2"}
    graph_scheme: dict[str, Any] = {"bgcolor": "mintcream"}

    def __init__(
        self,
        root: Any = None,
        type: str | None = None,
        id: str | None = None,
        indent: int = 0,
        inw: str = " " * 4,
        **scheme: Any,
    ) -> None:
        self.id, self.root, self.type = id or "dependencies", root, type or "digraph"
        self.direction = self._dirs[self.type]
        self.IN = inw * (indent or 0)
        self.INp = self.IN + inw
        self.scheme = {**self.scheme, **scheme}
        self.graph_scheme = {**self.graph_scheme, "root": self.label(self.root)}

    def attr(self, name: str, value: Any) -> bytes:
        return self.FMT(self._attr, name=name, value=f'"{value}"')

    def attrs(self, d: Any, scheme: Any = None) -> str:
        merged = {**self.scheme, **(scheme or {}), **(d or {})}
        return self._attrsep.join(safe_str(self.attr(k, v)) for k, v in merged.items())

    def head(self, **attrs: Any) -> bytes:
        drawn = self.attrs(attrs, self.graph_scheme)
        return self.FMT(self._head, id=self.id, type=self.type, attrs=drawn)

    def tail(self) -> bytes:
        return self.FMT(self._tail)

    def label(self, obj: Any) -> Any:
        return obj

    def node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.node_scheme, attrs)

    def terminal_node(self, obj: Any, **attrs: Any) -> bytes:
        return self.draw_node(obj, self.term_scheme, attrs)

    def edge(self, a: Any, b: Any, **attrs: Any) -> bytes:
        return self.draw_edge(a, b, **attrs)

    def draw_edge(self, a: Any, b: Any, scheme: Any = None, attrs: Any = None) -> bytes:
        drawn = self.attrs(attrs, self.edge_scheme)
        return self.FMT(self._edge, self.label(a), self.label(b), dir=self.direction, attrs=drawn)

    def draw_node(self, obj: Any, scheme: Any = None, attrs: Any = None) -> bytes:
        return self.FMT(self._node, self.label(obj), attrs=self.attrs(attrs, scheme))

    def FMT(self, fmt: str, *args: Any, **kwargs: Any) -> bytes:
        return fmt.format(*args, **kwargs, IN=self.IN, INp=self.INp).encode("utf-8", "ignore")
