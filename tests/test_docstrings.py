"""Public docstrings: whoever reads one need not read the code."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import oban_actors
from oban_actors import actors

ELSEWHERE = re.compile(r"[Ss]ee `|as in `|[Mm]irrors `|[Ll]ike `")
"""Words that send the reader to where it is said."""

PUBLIC = sorted(
    {
        (name, getattr(module, name))
        for module in (oban_actors, actors)
        for name in module.__all__
        if getattr(getattr(module, name), "__module__", "").startswith("oban_actors")
        and (inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)))
    },
    key=lambda found: found[0],
)


def functions(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Give a class's own public methods and properties."""
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        function = function.fget if isinstance(function, property) else function
        if inspect.isfunction(function) and not name.startswith(("_", "handle_")):
            yield f"{cls.__name__}.{name}", function


def unsaid(doc: str, names: list[str]) -> list[str]:
    """Name those that a docstring does not mention."""
    return [name for name in names if not re.search(rf"(?<![\w.])\*{{0,2}}{name}\b", doc)]


def made_by_callers(cls: type) -> bool:
    """Whether a class is one that callers make: no error, no protocol, with a way of its own."""
    protocol = getattr(cls, "_is_protocol", False)
    return "__init__" in vars(cls) and not issubclass(cls, BaseException) and not protocol


def parameters(function: Callable[..., Any]) -> list[str]:
    """Name a function's parameters, but for those that are not for its callers."""
    names = [name for name in inspect.signature(function).parameters if not name.startswith("_")]
    return [name for name in names if name not in {"self", "cls", "args", "kwargs"}]


@pytest.mark.parametrize(("name", "thing"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_each_field_and_parameter_is_said(name: str, thing: Any) -> None:
    """By name, or it is said where; and each has a docstring of its own."""
    # A class's would else be its base's.
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert doc, name
    if inspect.isclass(thing):
        given = parameters(thing.__init__) if made_by_callers(thing) else []
        if dataclasses.is_dataclass(thing):
            given = [field.name for field in dataclasses.fields(thing) if field.repr or field.init]
        assert unsaid(doc, given) == [], name
        checked = list(functions(thing))
    else:
        checked = [(name, thing)]
    for label, function in checked:
        said = function.__doc__ or ""
        assert said, label
        if len(parameters(function)) > 1 and not ELSEWHERE.search(said):
            assert unsaid(said, parameters(function)) == [], label
        raised = re.search(r"^\s+raise \w", inspect.getsource(function), re.MULTILINE)
        if raised and not ELSEWHERE.search(said):
            assert "Raises:" in said, label
