"""What the text of an error tells of what a worker raised."""

from typing import Any

import pytest

from oban_actors import Job
from tests.workers import jobs
from tests.workers.running import calling, do, run, text


@pytest.mark.parametrize("kind", jobs.KINDS, ids=lambda kind: kind.__name__)
def test_an_error_holds_no_frame_of_ours(kind: Any) -> None:
    """Its traceback begins with the worker's: ours would hold the claim that holds the error."""
    claim = run(do(kind, "error"))

    assert claim.error is not None
    trace = claim.error.__traceback__
    assert trace is not None
    assert not trace.tb_frame.f_code.co_filename.endswith("performing.py")


def test_huge_errors_are_cut_and_storable() -> None:
    """An error's text is bounded and holds nothing that a database refuses, frames included."""
    whole = text(run(do(jobs.plain, "huge")))

    assert len(whole.encode()) <= 64 * 1024
    assert "\0" not in whole
    assert "in act" in whole


def test_causes_and_groups_are_shown() -> None:
    """The text names what an error came from, and what a group contains."""

    def fail(job: Job) -> None:
        try:
            job.args["first"]
        except KeyError as error:
            raise ExceptionGroup("several", [OSError("a"), ValueError("b")]) from error

    whole = text(run(calling(fail)))

    assert "** (ExceptionGroup) several (2 sub-exceptions)" in whole
    assert "containing ** (OSError) a" in whole
    assert "caused by ** (KeyError) 'first'" in whole


def test_notes_are_shown_and_a_circle_ends() -> None:
    """What was noted with an error stands below its message, and each error is told once."""

    def fail(_job: Job) -> None:
        one, two = ValueError("one"), OSError("two")
        one.add_note("while mailing")
        one.__cause__, two.__cause__ = two, one
        raise one

    lines = text(run(calling(fail))).splitlines()

    assert lines[:2] == ["** (ValueError) one", "    while mailing"]
    assert [line for line in lines if "** (" in line][1:] == ["caused by ** (OSError) two"]


def test_what_was_handled_is_shown_unless_hidden() -> None:
    """An error that came while another was handled names it, and does not after `from None`."""

    def fail(job: Job) -> None:
        try:
            job.args["first"]
        except KeyError:
            raise ValueError("second")  # noqa: B904 (as workers do)

    def hide(job: Job) -> None:
        try:
            job.args["first"]
        except KeyError:
            raise ValueError("second") from None

    assert "while handling ** (KeyError) 'first'" in text(run(calling(fail)))
    assert "first" not in text(run(calling(hide)))


def test_endless_recursion_is_shown_in_brief() -> None:
    """Of a thousand frames the ends are kept."""

    def fail(job: Job) -> None:
        fail(job)

    whole = text(run(calling(fail)))

    assert whole.startswith("** (RecursionError)")
    assert "more frames" in whole
    assert len(whole.splitlines()) < 60
