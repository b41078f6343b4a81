"""The model of the store of producers: beats, claims that nobody holds, and rescue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from oban_actors.claim import Claimant
from oban_actors.engines.engine import BeatReport, ProducerBeat, TableClaim
from oban_actors.engines.rescue import (
    ClaimGroup,
    ProducerReport,
    Rescued,
    RescueState,
    sort_rescued,
)
from oban_actors.repo.times import to_text
from tests.simulation.client import SimConnection
from tests.simulation.database import Row, Transaction
from tests.simulation.job_store import JOBS, aware, in_order

PRODUCERS = "oban_actors_producers"


@dataclass(frozen=True, slots=True)
class _Given:
    uuid: str | None
    queue: str
    limit: int
    aside: Sequence[int]
    age: float | None


class ProducerStore:
    """Beats, releases and rescue; see `BeatEngine` and `RescueEngine`."""

    def beat(
        self, connection: SimConnection, beats: Sequence[ProducerBeat], now: datetime | None
    ) -> BeatReport:
        """See `JobEngine`."""
        return connection.run(lambda made: _beat(made, beats))  # type: ignore[no-any-return]  # what it gives

    def release_jobs(
        self,
        connection: SimConnection,
        claimant: Claimant,
        queue: str,
        held: Sequence[int],
        now: datetime | None,
    ) -> list[int]:
        """See `JobEngine`."""
        known = set(held)

        def release(made: Transaction) -> list[int]:
            released = []
            for row in _claimed(made, claimant.uuid, queue):
                if row["id"] in known or not made.try_lock(JOBS, row["id"]):
                    continue
                attempt = max(row["attempt"] - 1, 0)
                made.put(JOBS, row["id"], row | {"state": "available", "attempt": attempt})
                made.notes.append(("release", row["id"], claimant.uuid))
                released.append(row["id"])
            return sorted(released)

        return connection.run(release)  # type: ignore[no-any-return]  # what it gives

    def claimed_ids(self, connection: SimConnection, claimant: Claimant, queue: str) -> list[int]:
        """See `JobEngine`."""

        def look(made: Transaction) -> list[int]:
            return sorted(row["id"] for row in _claimed(made, claimant.uuid, queue))

        return connection.run(look)  # type: ignore[no-any-return]  # what it gives

    def claim_of(self, connection: SimConnection, job_id: int) -> tuple[str, str | None] | None:
        """See `JobEngine`."""

        def look(made: Transaction) -> tuple[str, str | None] | None:
            row = made.get(JOBS, job_id)
            if row is None:
                return None
            at = row["attempted_at"]
            return row["state"], None if at is None else to_text(aware(at))

        return connection.run(look)  # type: ignore[no-any-return]  # what it gives

    def forget_producer(self, connection: SimConnection, claimant: Claimant) -> None:
        """See `JobEngine`."""

        def forget(made: Transaction) -> None:
            row = made.get(PRODUCERS, claimant.uuid)
            if row is not None and not _claimed(made, claimant.uuid, row["queue"]):
                made.lock(PRODUCERS, claimant.uuid)
                made.put(PRODUCERS, claimant.uuid, None)

        connection.run(forget)

    # Rescue

    def report_producers(
        self, connection: SimConnection, mark: str | None, age: float, now: datetime | None
    ) -> ProducerReport:
        """See `RescueEngine`."""

        def beats(made: Transaction) -> tuple[str, dict[str, str]]:
            return str(made.server.runs), {
                row["uuid"]: str(row["beat_at"]) for row in made.rows(PRODUCERS)
            }

        def claims(made: Transaction) -> list[ClaimGroup]:
            old = made.now() - timedelta(seconds=age)
            groups: dict[tuple[str | None, str], bool] = {}
            for row in made.rows(JOBS):
                if row["state"] == "executing":
                    place = row["uuid"], row["queue"]
                    groups[place] = groups.get(place, False) or row["attempted_at"] < old
            return [ClaimGroup(uuid, queue, aged) for (uuid, queue), aged in groups.items()]

        server, found = connection.run(beats)
        return ProducerReport(server, found, connection.run(claims))

    def hold_producer(self, connection: SimConnection, uuid: str, beat: str | None) -> bool:
        """See `RescueEngine`."""

        def hold(made: Transaction) -> bool:
            row = made.get(PRODUCERS, uuid)
            if beat is None:
                made.lock(PRODUCERS, uuid)
                if row is not None:
                    return False
                shown = {"uuid": uuid, "queue": "", "beat_at": made.now(), "started_at": made.now()}
                made.put(PRODUCERS, uuid, shown | {"identity": "", "name": ""})
                return True
            if row is None or str(row["beat_at"]) != beat:
                return False
            return made.try_lock(PRODUCERS, uuid)

        return bool(connection.run(hold))

    def find_orphans(
        self,
        connection: SimConnection,
        uuid: str | None,
        queue: str,
        limit: int,
        aside: Sequence[int],
        *,
        age: float | None = None,
        now: datetime | None = None,
    ) -> list[int]:
        """See `RescueEngine`."""
        given = _Given(uuid, queue, limit, aside, age)
        return connection.run(lambda made: _orphans(made, given))  # type: ignore[no-any-return]  # what it gives

    def find_used_up(
        self, connection: SimConnection, queue: str, limit: int, aside: Sequence[int]
    ) -> list[int]:
        """See `RescueEngine`."""

        def find(made: Transaction) -> list[int]:
            rows = [row for row in made.rows(JOBS) if row["state"] == "available"]
            rows = [row for row in in_order(rows) if row["queue"] == queue][:limit]
            used_up = [row["id"] for row in rows if row["attempt"] >= row["max_attempts"]]
            return [job_id for job_id in used_up if made.try_lock(JOBS, job_id)]

        return connection.run(find)  # type: ignore[no-any-return]  # what it gives

    def rescue_jobs(
        self,
        connection: SimConnection,
        ids: Sequence[int],
        state: RescueState,
        error: str,
        now: datetime | None,
    ) -> Rescued:
        """See `RescueEngine`."""
        return connection.run(lambda made: _rescue(made, ids, state, error))  # type: ignore[no-any-return]  # what it gives

    def settle_producer(
        self, connection: SimConnection, uuid: str, beat: str | None, queues: Sequence[str]
    ) -> bool:
        """See `RescueEngine`."""

        def settle(made: Transaction) -> bool:
            left = any(_claimed(made, uuid, queue) for queue in queues)
            if beat is None or not left:
                made.lock(PRODUCERS, uuid)
                made.put(PRODUCERS, uuid, None)
            return not left

        return bool(connection.run(settle))


def _claimed(made: Transaction, uuid: str | None, queue: str) -> list[Row]:
    mine = ("executing", uuid, queue)
    rows = [row for row in made.rows(JOBS) if (row["state"], row["uuid"], row["queue"]) == mine]
    return in_order(rows)


def _beat(made: Transaction, beats: Sequence[ProducerBeat]) -> BeatReport:
    at = made.now()
    for beat in beats:
        uuid = beat.claimant.uuid
        made.lock(PRODUCERS, uuid)
        known = made.get(PRODUCERS, uuid) or {"started_at": at}
        shown = {"uuid": uuid, "identity": beat.identity, "name": beat.name, "queue": beat.queue}
        made.put(PRODUCERS, uuid, known | shown | {"beat_at": at})
    for beat in beats:
        made.notes.append(("beat", beat.claimant.uuid))
    claims = [
        TableClaim(beat.claimant.uuid, row["id"], aware(row["attempted_at"]))
        for beat in beats
        for row in _claimed(made, beat.claimant.uuid, beat.queue)
    ]
    available = {row["queue"] for row in made.rows(JOBS) if row["state"] == "available"}
    return BeatReport(claims, frozenset(beat.queue for beat in beats if beat.queue in available))


def _orphans(made: Transaction, given: _Given) -> list[int]:
    old = None if given.age is None else made.now() - timedelta(seconds=given.age)
    ids: list[int] = []
    made.notes.append(("orphans", given.uuid))
    for row in _claimed(made, given.uuid, given.queue):
        young = old is not None and row["attempted_at"] >= old
        if young or row["id"] in given.aside or len(ids) >= given.limit:
            continue
        if made.try_lock(JOBS, row["id"]):
            ids.append(row["id"])
    return ids


def _rescue(made: Transaction, ids: Sequence[int], state: RescueState, error: str) -> Rescued:
    done, at = [], made.now()
    for job_id in ids:
        row = made.get(JOBS, job_id)
        used_up = row is not None and row["attempt"] >= row["max_attempts"]
        if row is None or row["state"] != state or (state == "available" and not used_up):
            continue
        made.lock(JOBS, job_id)
        fate = "discarded" if used_up else "available"
        changed = {"state": fate, "errors": [*row["errors"], {"error": error}], "done_at": at}
        made.put(JOBS, job_id, row | changed)
        if state == "executing":
            made.notes.append(("rescue", job_id, row["uuid"]))
        done.append((job_id, str(row["queue"]), fate))
    return sort_rescued(done, state)
