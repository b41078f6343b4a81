"""Other libraries at their best settings, and we beside them in the same run."""

import time
from pathlib import Path
from statistics import median

import psycopg

from oban_actors import Job
from tests.bench.backlog import Store, migrated, new_store
from tests.bench.bench_queues import KINDS, bare_starts, drain, starts
from tests.bench.peer_environments import LIBRARIES, Library, environment
from tests.bench.program import Program, run_to_end
from tests.bench.programs.pacing import COUNT, WARMING
from tests.bench.report import Report
from tests.support.databases import new_database
from tests.support.postgres import PostgresServer

JOBS = 20_000
FEWER = {"procrastinate": 2_000}
"""Jobs for a library that would take a minute for them all."""
LIMIT = 2_000
ROUNDS = 9
STARTS = COUNT
LOST = -1.0


def run(report: Report) -> None:
    """Drain, insert, and begin; a library that can't be had is named, with -1 for its figures."""
    places = {library.name: _installed(library, report) for library in LIBRARIES}
    there = [library for library in LIBRARIES if places[library.name] is not None]
    drained: dict[str, list[float]] = {}
    inserted: dict[str, list[float]] = {}
    with PostgresServer(durable=True) as server:
        for _ in range(ROUNDS):
            for kind in KINDS:
                rates = _ours(server, kind)
                inserted.setdefault("ours", []).append(rates[0])
                drained.setdefault(f"ours, {kind}", []).append(rates[1])
            for library in there:
                rates = _theirs(server, library, places[library.name] or Path())
                inserted.setdefault(library.name, []).append(rates[0])
                drained.setdefault(library.name, []).append(rates[1])
        begun = {"ours": starts(server, STARTS), "the bare chain": bare_starts(server, STARTS)}
        for library in there:
            begun[library.name] = _their_starts(server, library, places[library.name] or Path())
    _report(report, drained, inserted, there)
    _report_starts(report, begun)


def _report(
    report: Report,
    drained: dict[str, list[float]],
    inserted: dict[str, list[float]],
    there: list[Library],
) -> None:
    for name, rates in drained.items():
        report.add(f"{name}, drain", median(rates), "jobs/s")
    for name, rates in inserted.items():
        report.add(f"{name}, bulk insert", median(rates), "jobs/s")
    for library in there:
        goal = "> 8" if library.name == "oban" else "> 1"
        for kind in KINDS:
            ratio = median(drained[f"ours, {kind}"]) / median(drained[library.name])
            report.add(f"drain, {kind}, beside {library.name}", ratio, "ours / theirs", goal)
        ratio = median(inserted["ours"]) / median(inserted[library.name])
        report.add(f"bulk insert beside {library.name}", ratio, "ours / theirs")


def _report_starts(report: Report, begun: dict[str, list[float]]) -> None:
    for name, late in begun.items():
        report.add_samples(f"{name}, insert to start", late, "ms")
    for name, late in begun.items():
        if name != "ours":
            ratio = median(begun["ours"]) / median(late)
            report.add(f"insert to start beside {name}", ratio, "ours / theirs, p50")


def _installed(library: Library, report: Report) -> Path | None:
    try:
        return environment(library)
    except RuntimeError as error:
        report.add(f"{library.name} could not be installed: {error}", LOST, "none")
        return None


def _ours(server: PostgresServer, kind: str) -> tuple[float, float]:
    with new_database(server) as name:
        store = Store(server.url(name), server.conninfo(name))
        oban = migrated(store)
        jobs = [Job.new(worker="bench.none", args={}, queue="other") for _ in range(JOBS)]
        began = time.perf_counter()
        oban.insert_all(jobs)
        inserted = JOBS / (time.perf_counter() - began)
        oban.repo.close()
    # A table of its own: the others drain what they inserted, beside nothing else.
    with new_store(server) as store:
        return inserted, drain(store, JOBS, LIMIT, kind)["rate"]


def _theirs(server: PostgresServer, library: Library, python: Path) -> tuple[float, float]:
    count = FEWER.get(library.name, JOBS)
    script = f"run_{library.name}.py"
    with new_database(server) as name:
        url = server.conninfo(name)
        said = run_to_end(python, script, ["prepare", url, count])
        with Program(python, script, "drain", url, count, library.limit) as program:
            first = program.wait_for("first")
            program.wait_for("ran")
            _wait_finished(url, library)
            return count / said["inserted"], count / (time.time() - first)


def _their_starts(server: PostgresServer, library: Library, python: Path) -> list[float]:
    script = f"run_{library.name}.py"
    with new_database(server) as name:
        url = server.conninfo(name)
        run_to_end(python, script, ["prepare", url, 1])
        with Program(python, script, "drain", url, 0, library.limit) as program:
            program.wait_for("first")
            run_to_end(python, script, ["insert", url])
            _wait_finished(url, library)
            late: list[float] = program.end()["late"]
    return late[WARMING:]


def _wait_finished(url: str, library: Library) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(f"SELECT {library.unfinished}").fetchone() == (True,):
            pass
