"""The options `unique` and `replace`: what they mean, and what is refused."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oban_actors.errors import InvalidJob
from oban_actors.job import Job
from oban_actors.unique import (
    ALL,
    INCOMPLETE,
    REPLACEABLE,
    SUCCESSFUL,
    Unique,
    alike,
    holds,
)


def unique_of(value: Any) -> Unique | None:
    """Give what a job makes of the option."""
    return Job.new(worker="w", unique=value).unique


def test_not_unique() -> None:
    """Jobs are not unique unless they are told to be."""
    assert unique_of(None) is None
    assert unique_of(False) is None
    assert Job.new(worker="w").unique is None


def test_defaults() -> None:
    """A mapping has Oban's defaults; True has them too, but for ever."""
    fields = ("args", "queue", "worker")
    assert unique_of({}) == Unique(60.0, fields, (), SUCCESSFUL, "inserted_at")
    assert unique_of(True) == Unique(None, fields, (), SUCCESSFUL, "inserted_at")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(5, 5.0), (timedelta(minutes=2), 120.0), ("infinity", None), (None, None), (0.5, 0.5)],
)
def test_period(given: Any, seconds: float | None) -> None:
    """A period is seconds or a timedelta, or for ever."""
    assert unique_of({"period": given}) == Unique(period=seconds)


@pytest.mark.parametrize(
    ("given", "states"),
    [
        ("all", ALL),
        ("incomplete", INCOMPLETE),
        ("scheduled", ("scheduled",)),
        ("successful", SUCCESSFUL),
        (["scheduled", "available", "scheduled"], ("scheduled", "available")),
    ],
)
def test_states(given: Any, states: tuple[str, ...]) -> None:
    """States are a group's or those that are listed, each once."""
    found = unique_of({"states": given})
    assert found is not None
    assert found.states == states


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (1, "unique"),
        ("args", "unique"),
        ({"period": 0}, "unique.period"),
        ({"period": -1}, "unique.period"),
        ({"period": "soon"}, "unique.period"),
        ({"period": True}, "unique.period"),
        ({"fields": []}, "unique.fields"),
        ({"fields": "args"}, "unique.fields"),
        ({"fields": ["arg"]}, "unique.fields"),
        ({"keys": "id"}, "unique.keys"),
        ({"keys": [1]}, "unique.keys.0"),
        ({"states": "most"}, "unique.states"),
        ({"states": []}, "unique.states"),
        ({"states": ["done"]}, "unique.states"),
        ({"timestamp": "attempted_at"}, "unique.timestamp"),
    ],
)
def test_bad_unique(given: Any, path: str) -> None:
    """What can't be used is refused where the job is built, and named."""
    with pytest.raises(InvalidJob, match=f"'{path}'"):
        unique_of(given)


def test_unknown_option() -> None:
    """A misspelt option is refused with the one that was meant."""
    with pytest.raises(InvalidJob, match="did you mean 'period'"):
        unique_of({"perod": 60})


def test_states_without_new_jobs() -> None:
    """States in which no job is inserted are no protection, which is said."""
    with pytest.warns(UserWarning, match="no job is inserted in any of these"):
        unique_of({"states": ["executing", "completed"]})


def test_keys_without_documents() -> None:
    """Keys count for args and meta only, which is said where neither counts."""
    with pytest.warns(UserWarning, match="keys count for nothing"):
        unique_of({"fields": ["worker"], "keys": ["id"]})


def test_replace() -> None:
    """A list replaces in every state, a mapping in those it names."""
    job = Job.new(worker="w", replace=["args", "tags"])
    assert job.replace == dict.fromkeys(ALL, ("args", "tags"))
    job = Job.new(worker="w", replace={"scheduled": list(REPLACEABLE)})
    assert job.replace == {"scheduled": REPLACEABLE}


@pytest.mark.parametrize(
    "given", ["args", ["state"], {"scheduled": ["id"]}, {"sheduled": ["args"]}, 3, {"available": 3}]
)
def test_bad_replace(given: Any) -> None:
    """Fields that can't be replaced and states that are none are refused."""
    with pytest.raises(InvalidJob, match="replace"):
        Job.new(worker="w", replace=given)


def test_made_by_hand() -> None:
    """A job whose option was set by hand is checked before it is inserted."""
    job = Job(worker="w")
    job.unique = {"period": 3}  # type: ignore[assignment]  # as a careless host would
    job.validate()
    assert job.unique == Unique(period=3.0)


SCALARS = st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from([1.0, 0.5, "a", "1"])
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(DOCUMENTS, DOCUMENTS)
@settings(max_examples=500, deadline=None)
def test_alike_is_to_hold_each_other(one: Any, other: Any) -> None:
    """What a look finds equal takes the same lock, whatever arrays hold twice or in part."""
    mutual = holds(one, other) and holds(other, one)
    assert alike({"v": one}, {"v": other}) is mutual


def test_parts_of_elements_do_not_count() -> None:
    """An element that another one holds adds nothing to an array."""
    whole = {"v": [{"a": 1, "b": [1, 2]}, 3]}
    assert alike(whole, {"v": [3, {"a": 1}, {"b": [2]}, {"b": [2, 1, 1], "a": 1.0}]})
    assert not alike(whole, {"v": [3, {"a": 1}, {"b": [1, 2]}]})
    assert not alike({"v": [1]}, {"v": [True]})


def test_numbers_are_of_one_kind() -> None:
    """As jsonb has it: whoever writes 1.0 looks for the same, and takes the same lock, as for 1."""
    assert alike({"v": [1, {"w": 2.0}]}, {"v": [1.0, {"w": 2}]})
    assert not alike({"v": 1}, {"v": 1.5})
    assert not alike({"v": 1}, {"v": True})
    jobs = [Job.new({"n": n}, worker="w") for n in (1, 1.0)]
    assert Unique().wish(jobs[0]) == Unique().wish(jobs[1])
