"""`enqueue`: one job."""

import json
import re
import sys
from datetime import datetime
from typing import Any

import click

from oban_actors.cli.job_view import as_data
from oban_actors.cli.output import moment
from oban_actors.cli.session import Session, common, examples, pass_session
from oban_actors.errors import ConfigError, InvalidJob
from oban_actors.job import Job
from oban_actors.worker_registry import find_worker, import_workers

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TIME = re.compile(r"([-+]?\d+(?:\.\d+)?)\s*([smhd]?)")


class Seconds(click.ParamType):  # type: ignore[type-arg]  # an older click has no argument
    """A time as `90`, `1.5`, `5m`, `2h` or `1d`."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read it."""
        if isinstance(value, int | float):
            return float(value)
        found = _TIME.fullmatch(str(value).strip())
        if found is None:
            self.fail("expected seconds, or a number with s, m, h or d, such as 5m", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Moment(click.ParamType):  # type: ignore[type-arg]  # as above
    """A moment in ISO 8601 with its zone."""

    name = "moment"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read it."""
        try:
            found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        except ValueError:
            found = None
        if found is None or found.utcoffset() is None:
            self.fail("expected a moment with its zone, such as 2030-01-31T09:00:00Z", param, ctx)
        return found


@click.command(
    epilog=examples(
        'oban-actors enqueue shop.mail.welcome \'{"to": "ann@example.org"}\'',
        "oban-actors enqueue shop.media.Resize - --queue media --schedule-in 5m < args.json",
    ),
)
@click.argument("worker")
@click.argument("args", metavar="[JSON]", default="{}")
@click.option("--queue", help="Where it runs; the worker's own, else default.")
@click.option("--schedule-in", type=Seconds(), help="When it is due, from now: 90, 5m, 2h, 1d.")
@click.option("--at", "scheduled_at", type=Moment(), help="When it is due: 2030-01-31T09:00:00Z.")
@click.option("--priority", type=int, help="0, the first, to 9.")
@click.option("--max-attempts", type=int, help="How often it may be tried.")
@click.option("--tag", "tags", multiple=True, help="A word to find it by; may be repeated.")
@click.option("--meta", metavar="JSON", help="An object about the job.")
@click.option("--import", "imports", multiple=True, metavar="MODULE", help="Where the worker is.")
@common
@pass_session
def enqueue(
    session: Session, worker: str, args: str, imports: tuple[str, ...], **given: Any
) -> None:
    """Insert a job for WORKER, with a JSON object as its args; - reads them from stdin.

    Where the worker can be imported (--import, or imports of the configuration), its own queue,
    attempts and the like count unless they are given.
    """
    told = {name: value for name, value in given.items() if value not in (None, ())}
    if "meta" in told:
        told["meta"] = _object("--meta", told["meta"])
    document = _object("args", _read() if args == "-" else args)
    extra = {"imports": imports} if imports else {}
    with session.oban(**extra) as oban:
        import_workers(oban.config.imports)
        spec = find_worker(worker)
        if spec is None and oban.config.imports:
            session.out.note(f"no worker {worker!r} is in {', '.join(oban.config.imports)}")
        defaults = {} if spec is None else spec.defaults
        name = worker if spec is None else spec.name
        job = oban.insert(_job(name, document, {**defaults, **told}))
    due = "" if job.state == "available" else f", due {moment(job.scheduled_at)}"
    words = f"job {job.id} is {job.state} in queue {job.queue}{due}"
    if job.conflict:
        words = f"job {job.id} is the same and was there before; it is {job.state}"
    session.out.result(
        {**as_data(job), "conflict": job.conflict}, lambda console: console.print(words)
    )


def _job(worker: str, args: dict[str, Any], told: dict[str, Any]) -> Job:
    try:
        return Job.new(args, worker=worker, **told)
    except InvalidJob as error:
        raise ConfigError(str(error)) from error


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError:
        encoding = sys.stdin.encoding
        raise click.UsageError(f"args: stdin is no {encoding}") from None


def _object(name: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise click.UsageError(f"{name}: no valid JSON{where}") from None
    if not isinstance(found, dict):
        raise click.UsageError(f"{name}: expected a JSON object, such as '{{\"id\": 1}}'")
    return found
