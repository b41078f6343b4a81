"""What a worker states that nobody would look at, and errors that say which worker is meant."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest

from oban_actors import ConfigError, Job, worker
from oban_actors.worker import find_worker
from tests.workers import jobs

pytestmark = pytest.mark.usefixtures("registry")


def _with(**attributes: Any) -> type[Any]:
    def perform(self: object, job: Job) -> None: ...

    return type("Made", (), {"perform": perform, **attributes})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"queue": "zz"}, r"its attribute 'queue' is no option: say @worker\(queue='zz'\), or"),
        (
            {"max_attempts": 3},
            r"its attribute 'max_attempts' is no option: say @worker\(max_attempts=3\)",
        ),
        ({"tags": ["a"]}, r"its attribute 'tags' is no option: say @worker\(tags=\.\.\.\)"),
        ({"redact": True}, r"its attribute 'redact' is no option"),
        ({"codec": jobs}, r"its attribute 'codec' is no option: say @worker\(codec=\.\.\.\)"),
        ({"timeout": 30}, r"its attribute 'timeout' is no option: say @worker\(timeout=30\)"),
    ],
)
def test_options_as_attributes_of_a_class(attributes: dict[str, Any], message: str) -> None:
    """As other libraries have them, they would be dropped without a word."""
    with pytest.raises(ConfigError, match=rf"^worker 'w': {message}"):
        worker(name="w")(_with(**attributes))

    assert find_worker("w") is None


def test_attributes_of_its_own() -> None:
    """Methods, properties and classes are its own affair, and so is what is an option as well."""
    made = _with(
        queue=property(lambda _self: "mine"),
        tags=lambda _self: [],
        meta=type("Meta", (), {}),
        priority=None,
        max_attempts="whatever",
    )
    spec = worker(name="w", max_attempts=5)(made) and find_worker("w")

    assert spec is not None
    assert (spec.queue, spec.max_attempts) == ("default", 5)


def _worker(**options: Any) -> Any:
    return worker(name="w", **options)


async def _late(_job: Job) -> float:
    return 3.0


@pytest.mark.parametrize("what", ["backoff", "timeout"])
@pytest.mark.parametrize(
    "how",
    [
        lambda what: _worker(**{what: _late})(lambda _job: None),
        lambda what: worker(name="w")(_with(**{what: _late})),
    ],
    ids=["option", "method"],
)
def test_times_that_would_have_to_be_awaited(what: str, how: Callable[[str], Any]) -> None:
    """Refused when it is declared: at run time the default would count instead."""
    with pytest.raises(
        ConfigError, match=f"^worker 'w': expected {what} to be a plain function, got one that is a"
    ):
        how(what)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"backoff": -1},
        {"redact": 3},
        {"codec": 3},
        {"aliases": "old"},
        {"queue": "*"},
    ],
    ids=str,
)
def test_an_error_names_the_worker(options: dict[str, Any]) -> None:
    """Among many in one module, too."""
    (option,) = options
    with pytest.raises(ConfigError, match=f"^worker 'w': invalid value for '{option}'"):
        worker(name="w", **options)(lambda _job: None)


def test_a_warning_points_at_who_is_warned() -> None:
    """At the line that declares the worker or builds the job, not at one of ours."""
    dubious: Any = {"keys": ["id"], "fields": ["worker"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one = worker(name="w", unique=dubious)(lambda _job: None)
        one.new(unique=dubious)
        Job.new(worker="w", unique=dubious)

        @worker(name="other", unique=dubious)
        class Other:
            def perform(self, job: Job) -> None: ...

    assert len(caught) >= 4
    assert {each.filename for each in caught} == {__file__}
