"""Args that stand in the table in another form than the worker sees, such as encrypted."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

from oban_actors import error_text
from oban_actors.errors import CodecError, ConfigError, InvalidJob
from oban_actors.json_value import json_object
from oban_actors.unique import Unique
from oban_actors.validation import OPTIONS

MARK: Final = "encoded_by"
"""Key that is added to what a codec gives, so that encoded args are told from plain ones."""

OURS: Final = "oban_actors"
"""What stands there."""


@runtime_checkable
class ArgsCodec(Protocol):
    """Changes args on their way to the table, and back just before the worker gets them.

    Both methods are called in any thread, and in each process that inserts or runs jobs. What they
    raise is never shown. An attribute `deterministic`, where it is True, says that equal args are
    always encoded to equal ones, so that jobs can be unique by all of them.
    """

    def encode(self, args: dict[str, Any], /) -> dict[str, Any]:
        """Give a JSON object for the table; Oban Pro has `{"data": TEXT}` for encrypted args."""

    def decode(self, args: dict[str, Any], /) -> dict[str, Any]:
        """Give the args that `encode` was given.

        Raises:
            Exception: they are not to be read; the job fails, as if its worker had raised.

        """


def codec_option(path: str, value: Any) -> ArgsCodec | None:
    """Check the option `codec`.

    Raises:
        ConfigError: it is no codec.

    """
    if value is None:
        return None
    if isinstance(value, type) or not isinstance(value, ArgsCodec):
        raise OPTIONS.refusal(path, "an object with encode(args) and decode(args)", value)
    deterministic = getattr(value, "deterministic", False)
    if not isinstance(deterministic, bool):
        raise OPTIONS.refusal(f"{path}.deterministic", "a boolean", deterministic)
    return value


def why_not_unique(codec: ArgsCodec, unique: Unique | None) -> str | None:
    """Say why jobs of a codec can't be unique in this way, None where they can."""
    if unique is None or "args" not in unique.fields:
        return None
    if not getattr(codec, "deterministic", False):
        return (
            "its codec encodes equal args differently, so that no two jobs were the same by "
            "args: leave args out of unique.fields and put what counts into meta, or let a codec "
            "that encodes equal args equally have deterministic = True"
        )
    if unique.keys:
        return (
            f"unique.keys {', '.join(map(repr, unique.keys))} can't be looked for in encoded "
            "args: leave args out of unique.fields and put what counts into meta"
        )
    return None


def check_unique(worker: str, codec: ArgsCodec, unique: Unique | None) -> None:
    """Check what a job is unique by.

    Raises:
        InvalidJob: it can't be.

    """
    if why := why_not_unique(codec, unique):
        raise InvalidJob(f"worker {worker!r} can't have unique jobs so: {why}")


def is_encoded(args: Mapping[str, Any]) -> bool:
    """Whether args are such as `encoded` gives."""
    return args.get(MARK) == OURS


def encoded(worker: str, codec: ArgsCodec, args: Mapping[str, Any]) -> dict[str, Any]:
    """Encode a job's args; what is encoded already stays as it is.

    Args:
        worker: the worker's name, for messages.
        codec: its codec.
        args: JSON.

    Raises:
        CodecError: the codec raised.
        InvalidJob: what it gave can't be stored.

    """
    if is_encoded(args):
        return dict(args)
    given = _called(worker, "encode", codec.encode, json_object("args", args))
    try:
        made = json_object("args", given)
    except InvalidJob as error:
        raise InvalidJob(f"the codec of worker {worker!r} gave what is no args: {error}") from None
    if MARK in made:
        raise InvalidJob(f"the codec of worker {worker!r} gave a key {MARK!r}, which is ours")
    return made | {MARK: OURS}


def refuse_encoded(worker: str, args: Mapping[str, Any]) -> None:
    """Keep encoded args from a worker without a codec, which could only do the wrong thing.

    Raises:
        CodecError: they are encoded.

    """
    if is_encoded(args):
        raise CodecError(f"the args of the job are encoded, and worker {worker!r} has no codec")


def decoded(worker: str, codec: ArgsCodec | None, args: dict[str, Any]) -> dict[str, Any]:
    """Decode a job's args; those that are not encoded are given as they are.

    Args:
        worker: the worker's name, for messages.
        codec: its codec, None where it has none.
        args: of the row.

    Raises:
        CodecError: the codec raised or gave no args, or there is none.

    """
    if codec is None:
        refuse_encoded(worker, args)
    if codec is None or not is_encoded(args):
        return args
    bare = {key: value for key, value in args.items() if key != MARK}
    found = _called(worker, "decode", codec.decode, bare)
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise CodecError(f"the codec of worker {worker!r} decoded no dict, but a value of {kind}")
    return found


def unfit(worker: str, codec: ArgsCodec, unique: Unique | None) -> ConfigError | None:
    """Make the error for a worker whose jobs can't be unique as it declares."""
    why = why_not_unique(codec, unique)
    return ConfigError(f"worker {worker!r} can't have unique jobs so: {why}") if why else None


# Helpers


def _called(worker: str, what: str, call: Callable[[dict[str, Any]], Any], args: Any) -> Any:
    try:
        return call(args)
    except Exception as error:  # noqa: BLE001 (a codec may raise anything)
        failed = CodecError(
            f"the codec of worker {worker!r} can't {what} the args: {type(error).__qualname__}"
        )
        # Where, but not what: its message may show what it was given.
        for line in error_text.frames(error, (__file__,)):
            failed.add_note(line.strip())
    raise failed
