"""The errors: one family each, facts as attributes."""

import importlib
import pickle
import pkgutil

import pytest

import oban_actors
from oban_actors import errors
from oban_actors.actors import errors as actor_errors
from oban_actors.errors import (
    CommitUnknown,
    ConfigError,
    DatabaseError,
    ForkedError,
    InvalidJob,
    NotStarted,
    ObanError,
    SchemaTooNew,
)

DATABASE = [
    errors.CommitUnknown,
    errors.DatabaseUnavailable,
    errors.SchemaMissing,
    errors.SchemaTooNew,
    errors.StatementTimeout,
    errors.TransientError,
    errors.UndefinedTable,
]


@pytest.mark.parametrize("kind", [ConfigError, InvalidJob])
def test_bad_values_are_value_errors(kind: type[ObanError]) -> None:
    """Wrong options and fields can be caught as ours and as ValueError."""
    assert issubclass(kind, ObanError)
    assert issubclass(kind, ValueError)


@pytest.mark.parametrize("kind", DATABASE)
def test_database_errors_are_one_family(kind: type[DatabaseError]) -> None:
    """Whatever the database does can be caught as DatabaseError, and has a sqlstate or None."""
    error = kind("it broke")

    assert isinstance(error, DatabaseError)
    assert isinstance(error, ObanError)
    assert error.sqlstate is None
    assert str(error) == "it broke"


@pytest.mark.parametrize("kind", [ForkedError, NotStarted])
def test_misuse_is_no_database_error(kind: type[ObanError]) -> None:
    """A call at the wrong time is not taken for a failing database, which is tried again."""
    assert issubclass(kind, ObanError)
    assert not issubclass(kind, DatabaseError)


def test_facts_survive_pickling() -> None:
    """Errors keep their facts on the way between processes."""
    unknown = CommitUnknown("no answer", sqlstate="08006", transaction_id="742")
    too_new = SchemaTooNew("too new", found=15, known=14)

    first = pickle.loads(pickle.dumps(unknown))  # noqa: S301 (our own bytes)
    second = pickle.loads(pickle.dumps(too_new))  # noqa: S301 (our own bytes)

    assert (str(first), first.sqlstate, first.transaction_id) == ("no answer", "08006", "742")
    assert (str(second), second.found, second.known) == ("too new", 15, 14)


def test_every_error_can_be_imported_from_one_place() -> None:
    """Errors of the actor layer are exported, as the very same classes."""
    for name, value in vars(actor_errors).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert getattr(errors, name) is value
            assert name in errors.__all__


def test_every_error_of_ours_is_public() -> None:
    """Whatever part raises it, a caller finds it in one place, and in the package itself."""
    for module in pkgutil.walk_packages(oban_actors.__path__, "oban_actors."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, kinds = set(), [ObanError, errors.ActorError]
    while kinds:
        kind = kinds.pop()
        found |= {kind} if kind.__module__.startswith("oban_actors.") else set()
        kinds += kind.__subclasses__()

    assert {kind.__name__ for kind in found} == set(errors.__all__)
    assert set(errors.__all__) <= set(oban_actors.__all__)


def test_every_error_says_what_it_means() -> None:
    """Each exported error has a docstring of its own."""
    kinds = [getattr(errors, name) for name in errors.__all__]

    assert len({kind.__doc__ for kind in kinds}) == len(kinds)
    assert all(kind.__doc__ for kind in kinds)
