"""What an actor's class handles, read from its own words, so that no test can forget a message."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

HOW = {"handle_info": ("told",), "handle_call": ("asked",), "answer": ("told", "asked")}
"""The methods that take messages, and how a message comes to them."""


def handled(cls: type[Any]) -> set[tuple[str, str]]:
    """Name the messages that a class handles, each with how it comes: told or asked."""
    return {
        (how, name)
        for base in cls.__mro__
        for method, ways in HOW.items()
        if (function := vars(base).get(method)) is not None
        for name in _names(function)
        for how in ways
    }


def _names(function: Any) -> Iterator[str]:
    module = inspect.getmodule(function)
    message = list(inspect.signature(function).parameters)[1]
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Match) and ast.unparse(node.subject) == message:
            for pattern in ast.walk(node):
                if isinstance(pattern, ast.MatchClass):
                    yield ast.unparse(pattern.cls)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            what, kinds = node.args
            if ast.unparse(what) == message:
                # A plugin's own message is known only where the plugin is.
                found = (ast.unparse(each) for each in ast.walk(kinds) if _names_a_class(each))
                yield from (name for name in found if hasattr(module, name))


def _names_a_class(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id.lstrip("_")[:1].isupper()
