"""Real jobs run when they are due: `make demo`, or `make demo ARGS=folder`.

Walks a folder and schedules one job per file, due in 1 to 5 seconds, on an SQLite file that is
gone afterwards. Each computes its file's checksum; some fail at first and are tried again, one is
snoozed and one cancelled. Shows the live tree of actors and the jobs' states, and says how late
jobs were available and began. Ends with 0 only if every one met the end it should, and every
checksum is right.
"""

import argparse
import contextlib
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from examples.demo_screen import Screen, choose
from examples.demo_watch import Ear, NewsHandler, Watch
from examples.demo_work import EARLIEST, LATEST, File, checked, expected, jobs_for, queues_of, walk
from oban_actors import IsLeader, Oban
from oban_actors.actors import SYSTEM_CLOCK, ServerCrashed, Supervisor

OK, FAILED, USAGE = 0, 1, 2
INTERRUPTED, TERMINATED = 130, 143
AT_ONCE = 4
"""Jobs of one queue that run at the same time."""

FRAME = 0.1
"""Seconds between two looks at the tree."""

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    folder: Path
    limit: int
    grace: float
    crash: bool
    plain: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and give the program's exit code."""
    options = _options(arguments)
    files = walk(options.folder, options.limit)
    if not files:
        print(f"there are no files below {options.folder}", file=sys.stderr)
        return USAGE
    # The default would end the program with its file left behind.
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with tempfile.TemporaryDirectory(prefix="oban-demo-") as place:
            queues = dict.fromkeys(queues_of(files).values(), AT_ONCE)
            oban = Oban(f"sqlite:///{place}/jobs.db", name="Demo", queues=queues)
            return _run(options, files, oban)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: Options, files: Sequence[File], oban: Oban) -> int:
    oban.migrate()
    with Watch(oban) as watch:
        handler = NewsHandler(watch)
        logging.getLogger("oban_actors").addHandler(handler)
        children = [oban.child_spec(), Ear.child_spec(oban, watch, id="Ear")]
        try:
            with Supervisor.start(children, strategy="rest_for_one", name="host") as root:
                jobs = jobs_for(options.folder, files)
                watch.expect(oban.insert_all(jobs))
                title = _title(options.folder, files, len({job.queue for job in jobs}))
                with choose(root, watch, title, plain=options.plain) as screen:
                    _follow(options, oban, watch, screen)
        finally:
            logging.getLogger("oban_actors").removeHandler(handler)
        return _verdict(options.folder, files, watch)


def _follow(options: Options, oban: Oban, watch: Watch, screen: Screen) -> None:
    """Show what goes on until every job has met its end, or the time is over."""
    until = (watch.last_due - SYSTEM_CLOCK.now()).total_seconds() + options.grace
    end = SYSTEM_CLOCK.monotonic() + until
    crash_at = (EARLIEST + LATEST) / 2 if options.crash else float("inf")
    while SYSTEM_CLOCK.monotonic() < end and not watch.done.wait(FRAME):
        if watch.elapsed() > crash_at:
            crash_at = float("inf")
            _crash(oban, watch)
        screen.update()


def _crash(oban: Oban, watch: Watch) -> None:
    """Ask the Stager something that it does not know, which ends it; its supervisor restarts it."""
    watch.note("asking the Stager a question that is the Peer's")
    with contextlib.suppress(ServerCrashed):
        oban.ask("stager", IsLeader())


def _verdict(folder: Path, files: Sequence[File], watch: Watch) -> int:
    """Say how it went, as the table and the files have it."""
    unmet, twice = watch.unmet(expected), watch.ended_twice()
    right = checked(folder, files, watch.results())
    wrong = len(right) - sum(right.values())
    print(f"late to be available: {watch.staging()}")
    print(f"late to begin: {watch.lateness()}")
    if unmet or twice or wrong or not watch.done.is_set():
        print(
            f"FAILED: {len(unmet)} of {watch.total} jobs did not meet the end they should in "
            f"time, {twice} ended twice, {wrong} gave a wrong checksum"
        )
        return FAILED
    runs = ", ".join(f"{count} {state}" for state, count in sorted(watch.runs.items()))
    print(
        f"OK: {watch.total} jobs met the end they should ({runs}; {watch.passes} passes), and "
        f"{len(right)} checksums are right"
    )
    return OK


def _title(folder: Path, files: Sequence[File], queues: int) -> str:
    size = sum(file.size for file in files) / 1e6
    where = "this project" if folder == PROJECT else folder.name or str(folder)
    return (
        f"{len(files)} files ({size:.1f} MB) of {where}: a job for each in {queues} queues, "
        f"due in {EARLIEST:g} to {LATEST:g} s"
    )


def _options(arguments: Sequence[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    add = parser.add_argument
    add("folder", nargs="?", type=_folder, default=PROJECT, help="default: this project")
    add("--limit", type=_count, default=2000, help="files at most (default: %(default)s)")
    add(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="fail when a job has not ended so long after the last is due (default: 30)",
    )
    add("--crash", action="store_true", help="crash the Stager halfway, and watch it come back")
    add("--plain", action="store_true", help="print lines, even on a terminal")
    return Options(**vars(parser.parse_args(arguments)))


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().resolve()
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return folder


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of files, got: {text!r}")
    return int(text)


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (its shape)
    raise SystemExit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
