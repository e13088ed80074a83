"""What a task shows in a shell: its own methods and its function's documentation."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import rlcompleter

import pytest

from fsdf_engine import Task, default_engine, task_deco


@task_deco("look", broker_kind="memory")
def add(x: int, y: int = 2) -> int:
    """Add them."""
    return x + y


METHODS = {"push", "apush", "push_many", "publish", "consume", "size", "clear", "join", "queue"}


def test_dir_and_completion_show_the_methods_and_what_the_function_has():
    add.fn.color = "red"
    assert {*METHODS, "color", "__code__"} <= {*dir(add)}
    completer, found = rlcompleter.Completer({"add": add}), []
    while (word := completer.complete("add.pu", len(found))) is not None:
        found.append(word.rstrip("()"))
    assert {"add.push", "add.push_many", "add.publish"} <= {*found}


def test_print_repr_and_format_show_a_task():
    assert repr(add) == str(add) == f"{add}" == "<task add on queue 'look'>"
    assert f"{add:>40}" == str(add).rjust(40)


def test_help_shows_the_signature_the_doc_and_the_methods():
    shown = pydoc.render_doc(add, renderer=pydoc.plaintext)
    assert "add(x: 'int', y: 'int' = 2) -> 'int'" in shown
    assert "Add them." in shown
    for method in METHODS:
        assert f"    {method} " in shown


def test_help_of_a_function_without_a_doc_shows_the_methods():
    task = task_deco("look_2", broker_kind="memory")(lambda x: x)
    assert "push " in pydoc.render_doc(task, renderer=pydoc.plaintext)


def test_inspect_sees_the_function_and_nothing_else():
    assert inspect.getdoc(add) == add.__doc__ == "Add them."
    assert inspect.isfunction(add)
    assert inspect.signature(add) == inspect.signature(add.fn)
    assert inspect.getsource(add) == inspect.getsource(add.fn)
    assert (add.__name__, add.__module__, add.__wrapped__) == ("add", __name__, add.fn)
    assert inspect.getdoc(Task).startswith("A function with a queue")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("push", "(x: 'int', y: 'int' = 2) -> 'AsyncResult[V]'"),
        ("delay", "(x: 'int', y: 'int' = 2) -> 'AsyncResult[V]'"),
        ("apush", "(x: 'int', y: 'int' = 2) -> 'AsyncResult[V]'"),
        ("push_in", "(transaction: 'object', /, x: 'int', y: 'int' = 2) -> 'str'"),
        ("apush_in", "(transaction: 'object', /, x: 'int', y: 'int' = 2) -> 'str'"),
    ],
)
def test_what_takes_the_functions_arguments_shows_its_parameters(name, told):
    method = getattr(add, name)
    assert str(inspect.signature(method)) == told
    assert f"{method.__name__}{told}" in pydoc.render_doc(method, renderer=pydoc.plaintext)
    assert inspect.iscoroutinefunction(method) == name.startswith("a")
    assert inspect.getdoc(method) == inspect.getdoc(getattr(Task, name))


def test_each_task_shows_the_parameters_of_its_own_function():
    @task_deco("look_4", broker_kind="memory")
    def other(self, /, transaction, *rest, name=1, **more): ...

    class Shape:
        @task_deco("look_5", broker_kind="memory")
        @classmethod
        def area(cls, width): ...

    assert str(inspect.signature(other.push)).startswith(
        "(self, /, transaction, *rest, name=1, **more)"
    )
    assert [*inspect.signature(other.push_in).parameters] == [
        "_transaction", "self", "transaction", "rest", "name", "more",
    ]  # fmt: skip
    assert [*inspect.signature(Shape.area.push).parameters] == ["width"]
    assert [*inspect.signature(add.push).parameters] == ["x", "y"]


def test_a_method_that_shows_parameters_is_a_method_as_any_other():
    assert (add.push.__self__, add.push.__qualname__) == (add, "Task.push")
    assert add.push == add.push == add.delay
    assert pickle.loads(pickle.dumps(add.push)) == add.push
    assert inspect.isfunction(Task.push)
    assert Task.push(add, 1).task_id


def test_what_a_subclass_has_instead_of_a_method_counts():
    class Loud(Task):
        def push(self, *args, **kwargs):
            return ["pushed", super().push(*args, **kwargs)]

    loud = Loud(add.fn, "look_6", add.options, default_engine())
    assert [loud.push(1)[0], loud.push(2)[0]] == ["pushed", "pushed"]
    assert loud.size().waiting == 2


def test_documentation_may_be_set_as_that_of_a_function():
    task = task_deco("look_3", broker_kind="memory")(lambda x: x)
    task.__doc__ = "Return it."
    assert task.fn.__doc__ == inspect.getdoc(task) == "Return it."


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("psuh", "did you mean 'push'"),
        ("colour", "did you mean 'color'"),
        ("xyz", "there are apublish_in, apush"),
    ],
)
def test_unknown_attribute_names_the_task_and_suggests(name, hint):
    add.fn.color = "red"
    with pytest.raises(AttributeError, match=rf"<task add on queue 'look'>.*'{name}'; {hint}"):
        getattr(add, name)


def test_attributes_of_the_function_pass_through_both_ways():
    add.fn.color = "green"
    assert add.color == "green"
    add.color = "blue"
    assert add.fn.color == "blue"
    assert not hasattr(add, "_repr_html_")


def test_a_task_may_be_written_in_annotations_that_are_evaluated():
    assert "Task" in str(Task[..., int])
    assert "Task" in str(Task[[int], int, int])
