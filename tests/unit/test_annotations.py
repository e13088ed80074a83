"""Values come back as annotations say, however they nest; what cannot be known stays as sent."""

# ruff: noqa: UP006, UP007, UP045 - the old spellings are what is tested here

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import functools
import typing
import uuid
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest
from helpers import BOUND

from fsdf_engine import ArgumentError, task_deco
from fsdf_engine.contracts import Delivery, Job, Plan
from fsdf_engine.core.binding import Binding
from fsdf_engine.message import FLAT, encode


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Corner(enum.Enum):
    TOP = (0, 1)
    END = datetime.date(2026, 1, 31)


class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Shape:
    color: Color
    points: list[Point] = dataclasses.field(default_factory=list)
    bounds: dict[str, Point] | None = None
    until: Optional[datetime.date] = None


@dataclasses.dataclass
class Tree:
    name: str
    branches: list["Tree"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Counted:
    items: list[int]
    count: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Half:
    color: Color
    unknown: "Nowhere"  # noqa: F821
    late: "Point"


@dataclasses.dataclass
class Whole(Half):
    more: Color = Color.RED


class Options(TypedDict, total=False):
    color: Color
    size: int


@dataclasses.dataclass
class Marked:
    __type__: str
    __value__: Any


UserId = NewType("UserId", uuid.UUID)
SHAPE = Shape(Color.RED, [Point(1, 2), Point(3)], {"a": Point(5)}, datetime.date(2026, 1, 31))
TREE = Tree("root", [Tree("left", [Tree("leaf")]), Tree("right")])
COUNTED = Counted([1, 2])
COUNTED.count = 7


def told(value):
    """Name a case alike in every process: sets have no order."""
    return str(sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)


def there(annotation, *args, **kwargs):
    """Send a call of a function whose parameter `a` is annotated; return what arrives."""

    def f(a):
        pass

    f.__annotations__ = {"a": annotation}
    return received(f, *args, **kwargs)["a"]


def received(fn, *args, **kwargs):
    binding = Binding(fn)
    data, leading = binding.name(args, kwargs)
    job = Job()
    job.plan = Plan("", "q", None, None, binding.bind)
    job.delivery = Delivery((0, 0), encode(data, {"task_id": "ID", "args": leading}))
    job.extra, job.kept = FLAT.envelope(job.delivery.body)
    args, kwargs = FLAT.arguments(job)
    return binding.signature.bind(*args, **kwargs).arguments


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Color, Color.RED),
        (Corner, Corner.TOP),
        (Corner, Corner.END),
        (Rights, Rights.READ | Rights.WRITE),
        (Optional[Color], Color.BLUE),
        (Optional[Color], None),
        (Color | None, Color.BLUE),
        (Union[int, Color, None], 3),
        (Union[int, Color, None], Color.RED),
        (float | Color, 3),
        (Any, [1]),
        (Point, Point(1, 2)),
        (Point | None, None),
        (Shape, SHAPE),
        (Shape, Shape(Color.BLUE)),
        (Tree, TREE),
        (Counted, COUNTED),
        (Marked, Marked("set", 3)),
        (Shape | Tree | Point, TREE),
        (list[Point], [Point(1), Point(2)]),
        (list[list[Color]], [[Color.RED], []]),
        (collections.abc.Sequence[Shape], [SHAPE]),
        (dict[str, Shape], {"a": SHAPE}),
        (collections.abc.Mapping[str, list[Color]], {"a": [Color.RED]}),
        (dict[str, Any], {"a": 1}),
        (tuple, (1, 2)),
        (tuple[int, ...], (1, 2)),
        (tuple[Color, ...], (Color.RED, Color.BLUE)),
        (tuple[Color, int, Point], (Color.RED, 1, Point(2))),
        (list[tuple[int, Color]], [(1, Color.RED)]),
        (set[Color], {Color.RED, Color.BLUE}),
        (set[Point], {Point(1), Point(2)}),
        (set[tuple[int, Color]], {(1, Color.RED)}),
        (frozenset[int], frozenset({1})),
        (frozenset, frozenset({(1, 2)})),
        (Annotated[Color, "help"], Color.RED),
        (list[Annotated[Point, "help"]], [Point(1)]),
        (UserId, UserId(uuid.UUID(int=7))),
        (Options, {"color": Color.RED, "size": 1}),
        (Literal["red"], "red"),
        (Literal["red"] | Point, Point(1)),
        (Optional[datetime.datetime], datetime.datetime(2026, 1, 31, 12)),
        (datetime.date | datetime.datetime, datetime.datetime(2026, 1, 31, 12)),
        (typing.List[Color], [Color.RED]),
        ("Shape", SHAPE),
        ("list[Tree] | None", [TREE]),
    ],
    ids=told,
)  # fmt: skip
def test_values_come_back_as_annotated(annotation, value):
    arrived = there(annotation, value)
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize(
    ("annotation", "sent", "value"),
    [
        (set[Color], ["red"], {Color.RED}),
        (Optional[datetime.date], "2026-01-31", datetime.date(2026, 1, 31)),
        (list[decimal.Decimal], ["1.10"], [decimal.Decimal("1.10")]),
        (Color | str, "green", "green"),
        (str | Color, "red", "red"),
        (Point, 7, 7),
        (list[Color], "red", "red"),
        (tuple[Color, int], ["red"], (Color.RED,)),
    ],
    ids=told,
)  # fmt: skip
def test_what_a_plain_client_sends_becomes_what_is_annotated_where_it_can(annotation, sent, value):
    assert there(annotation, sent) == value


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [(Color, "green"), (list[Color], ["green"]), (Color | None, "green"), (Shape, {"size": 1})],
)
def test_what_its_annotation_refuses_names_the_parameter(annotation, sent):
    with pytest.raises(ArgumentError, match="parameter 'a'"):
        there(annotation, sent)


def test_every_kind_of_parameter_is_converted():
    def f(first: Color, /, second: Color, *rest: Color, named: Color, **others: Color) -> None:
        pass

    one = Color.RED
    assert received(f, one, one, one, named=one, x=one) == {
        "first": one, "second": one, "rest": (one,), "named": one, "others": {"x": one},
    }  # fmt: skip


def test_annotations_that_cannot_be_resolved_leave_the_others_alone():
    def f(a: "Nowhere", b: "Color", c: "list[Half]"):  # noqa: F821
        pass

    half, whole = Half(Color.RED, 3, Point(1)), Whole(Color.RED, 3, Point(1), Color.BLUE)
    assert received(f, 1, Color.RED, [half]) == {"a": 1, "b": Color.RED, "c": [half]}
    assert there(Whole, whole) == whole


def test_names_may_be_defined_after_the_task():
    scope = {"task_deco": task_deco}
    exec("def f(a: 'Later'): pass", scope)
    binding = Binding(scope["f"])
    scope["Later"] = Color
    assert binding.bind({"a": "red"}, ())[1] == {"a": Color.RED}


def test_partials_and_callables_are_converted():
    class Work:
        def __call__(self, a: "Color", b: int = 0):
            pass

    assert received(functools.partial(Work(), b=1), Color.RED)["a"] is Color.RED
    assert received(Work(), a=Color.RED)["a"] is Color.RED


def test_results_come_back_as_the_return_annotation_says():
    @task_deco("annotated_result", broker_kind="memory", is_using_rpc_mode=True)
    def shapes(count: int) -> list[Shape]:
        return [SHAPE] * count if count else "none"

    shapes.consume()
    assert shapes.push(2).get(BOUND) == [SHAPE, SHAPE]
    assert shapes.push(0).get(BOUND) == "none"
    assert shapes.push_many([(1,)])[0].get(BOUND) == [SHAPE]
