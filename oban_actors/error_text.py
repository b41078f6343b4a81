"""The text of an error as it is kept with its job: Oban's form, in Python's terms.

** (ValueError) no such address
    app/mail.py:12: in send
    app/work.py:30: in welcome
"""

import re
from collections.abc import Callable, Container, Iterator
from types import TracebackType
from typing import Any

Clean = Callable[[str], str]

MOST = 64 * 1024
"""Bytes of one text; what is longer is cut."""

_MOST_MESSAGE = MOST // 2
_MOST_FRAMES = 50
_MOST_ERRORS = 10
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(text: str, most: int = MOST) -> str:
    """Make text that every database can hold: without NUL and lone surrogates, and not too long."""
    text = _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[: most + 1])
    data = text.encode()
    if len(data) <= most:
        return text
    return data[: most - 20].decode(errors="ignore") + "... (cut)"


def head(error: BaseException, clean: Clean = str) -> str:
    """Give the first line of an error's text, and further ones if its message has some."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "oban_actors.errors"):
        name = f"{kind.__module__}.{name}"
    return f"** ({name}) {message(error, clean)}".rstrip()


def message(error: BaseException, clean: Clean = str) -> str:
    """Give an error's message, whatever its `__str__` does."""
    try:
        return storable(clean(str.__str__(str(error))), _MOST_MESSAGE)
    except BaseException as broken:  # noqa: BLE001 (nothing in a worker's error may break us)
        return f"<no message: its __str__ raised {type(broken).__name__}>"


def shown(value: object) -> str:
    """Represent any value, whatever its `__repr__` does."""
    try:
        return storable(str.__str__(repr(value)), _MOST_MESSAGE)
    except BaseException as broken:  # noqa: BLE001 (as above)
        return f"<{type(value).__name__}: its __repr__ raised {type(broken).__name__}>"


def describe(error: BaseException, skip: Container[str] = (), clean: Clean = str) -> str:
    """Give an error's whole text: message, innermost frame first, causes.

    Args:
        error: any; one that has such a text, as its `described`, is told by that.
        skip: files whose frames are left out: ours.
        clean: changes each message before anything is cut off, default: not at all.

    """
    try:
        if isinstance(told := getattr(error, "described", None), str):
            return storable(told)
        return storable("\n".join(_lines(error, skip, clean)))
    except BaseException:  # noqa: BLE001 (as above)
        return "** (error that can't be described)"


def frames(error: BaseException, skip: Container[str] = ()) -> list[str]:
    """Give the innermost frames of an error, those first; the middle of very many is left out."""
    lines = list(_frames(error.__traceback__, skip))[::-1]
    if len(lines) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        left = len(lines) - 2 * half
        lines[half:-half] = [f"    ... {left} more frames ..."]
    return lines


def _lines(error: BaseException, skip: Container[str], clean: Clean) -> Iterator[str]:
    seen: set[int] = set()
    following: list[tuple[str, BaseException]] = [("", error)]
    while following and len(seen) < _MOST_ERRORS:
        word, each = following.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield f"{word}{head(each, clean)}"
        notes: Any = getattr(each, "__notes__", ())
        yield from (f"    {clean(note)}" for note in notes if isinstance(note, str))
        yield from frames(each, skip)
        if isinstance(each, BaseExceptionGroup):
            following += [("containing ", one) for one in each.exceptions]
        if each.__cause__ is not None:
            following.append(("caused by ", each.__cause__))
        elif each.__context__ is not None and not each.__suppress_context__:
            following.append(("while handling ", each.__context__))


def _frames(trace: TracebackType | None, skip: Container[str]) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename not in skip:
            yield f"    {code.co_filename}:{trace.tb_lineno}: in {code.co_qualname}"
        trace = trace.tb_next
