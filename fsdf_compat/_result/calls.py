"""What a task has called: a tree, and how to walk it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from kombu.utils.objects import cached_property

from ..exceptions import IncompleteStream
from ..utils.graph import DependencyGraph, GraphFormatter
from .tuples import ResultBase

__all__ = ["Calling"]


class Calling(ResultBase):
    """The part of a result that walks. Its methods are those of the result."""

    id: Any
    _get_task_meta: Any

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield itself and all that the task has called, in depth, with their values; waits.

        So the values of those that have called nothing more are

            >>> [value for node, value in result.collect() if not node.children]
            [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]

        where one task has called ten, and each of these one that squares.
        """
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """Wait for all that it has called, in depth, and return the last value."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Yield (parent, result) for itself and all that it has called.

        Raises:
            IncompleteStream: one has not ended, and `intermediate` is not set.
        """
        ahead: deque[Any] = deque([(None, self)])
        while ahead:
            parent, node = ahead.popleft()
            yield parent, node
            if node.ready():
                ahead.extend((node, child) for child in node.children or [])
            elif not intermediate:
                raise IncompleteStream

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> Any:
        """Return the graph of what it has called."""
        graph = DependencyGraph(formatter=formatter or GraphFormatter(root=self.id, shape="oval"))
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent:
                graph.add_edge(parent, node)
        return graph

    @cached_property
    def graph(self) -> Any:
        """The graph of what it has called."""
        return self.build_graph()

    @property
    def children(self) -> Any:
        """The results of what it has called."""
        return self._get_task_meta().get("children")
