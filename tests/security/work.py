"""Workers with secrets, also for other processes."""

import base64
import json
from typing import Any

from oban_actors import Cancel, Job, worker

CARD = "4111-1111-1111-1234"
STREET = 'Rue "Ségur" 7\n'
PIN = 90210_4711


class Marker:
    """A codec that anybody can read, so that a test sees what stands where."""

    def encode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Write it backwards."""
        text = json.dumps(args, sort_keys=True)
        return {"data": base64.b64encode(text.encode()).decode()[::-1]}

    def decode(self, args: dict[str, Any]) -> dict[str, Any]:
        """Read it."""
        if "data" not in args:
            raise KeyError(f"no data in {args}")
        found: dict[str, Any] = json.loads(base64.b64decode(args["data"][::-1]))
        return found


class Deterministic(Marker):
    """One that says that equal args are equal."""

    deterministic = True


def act(job: Job) -> Any:
    """Do what the job's args say, with all that it knows."""
    known = (
        f"card {job.args['card']}, street {job.args['address']['street']!r}, pin {job.args['pin']}"
    )
    match job.args.get("do"):
        case "return cancel":
            return Cancel(f"no money on {known}")
        case "raise cancel":
            raise Cancel({"why": known})
        case "exit":
            raise SystemExit(known)
        case "chain":
            try:
                raise LookupError(known)  # noqa: TRY301 (it is caught to be a cause)
            except LookupError as error:
                error.add_note(known)
                raise ValueError(f"again: {known}") from error
        case "error":
            raise ValueError(known)
    return len(known)


def args(do: str | None = None) -> dict[str, Any]:
    """Give args with secrets."""
    return {"card": CARD, "address": {"street": STREET, "city": "Lyon"}, "pin": PIN, "do": do}


REDACT = ("card", "address.street", "pin")


@worker(queue="alpha", redact=REDACT)
def careful(job: Job) -> Any:
    """A sync function."""
    return act(job)


@worker(queue="alpha", redact=REDACT)
async def acareful(job: Job) -> Any:
    """An async function."""
    return act(job)


@worker(queue="alpha", redact=REDACT)
class Careful:
    """A class."""

    def perform(self, job: Job) -> Any:
        """Do it."""
        return act(job)


@worker(queue="alpha", codec=Marker())
def sealed(job: Job) -> Any:
    """A function whose args are encoded."""
    assert job.args["card"] == CARD
    return act(job)


@worker(queue="alpha", codec=Marker())
async def asealed(job: Job) -> Any:
    """Likewise, async."""
    assert job.args["card"] == CARD
    return act(job)


SECRETS = (CARD, STREET, STREET.strip(), "Ségur", "S\\u00e9gur", str(PIN))
"""What must not be read anywhere; of the street also its parts, in any way of writing."""
