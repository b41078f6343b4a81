"""Notifying: what a NOTIFY in each inserting transaction costs, by bare statements."""

import threading
import time
from dataclasses import dataclass
from statistics import median

import psycopg

from tests.bench.backlog import Store, new_store
from tests.bench.report import Report
from tests.support.postgres import PostgresServer

INSERT = "INSERT INTO oban_jobs (queue, worker, args) VALUES ('other', 'bare', '{}')"
NOTIFY = "SELECT pg_notify('bench', '')"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        clients: that insert at the same time, in turn.
        seconds: of each round.
        rounds: the medians of which are reported.

    """

    clients: tuple[int, ...] = (1, 8, 32, 100)
    seconds: float = 5.0
    rounds: int = 3


def run(report: Report, size: Size = Size()) -> None:
    """Measure on a durable server, with one listener."""
    with PostgresServer(durable=True) as server, new_store(server) as store:
        for clients in size.clients:
            rates: dict[bool, list[float]] = {False: [], True: []}
            # In turns, so that whatever else the machine does meets both.
            for _ in range(size.rounds):
                for telling, found in rates.items():
                    found.append(_rate(store, clients, size.seconds, telling=telling))
            quiet, told = median(rates[False]), median(rates[True])
            named = "1 client" if clients == 1 else f"{clients} clients"
            report.add(f"{named} insert singly", quiet, "1/s")
            report.add(f"{named} insert singly and notify", told, "1/s")
            report.add(f"{named}, ratio", told / quiet, "of those that don't notify")


def _rate(store: Store, clients: int, seconds: float, *, telling: bool) -> float:
    counts: list[int] = []
    ready, over = threading.Barrier(clients + 1), threading.Event()

    def insert() -> None:
        done = 0
        with psycopg.connect(store.conninfo, prepare_threshold=0) as connection:
            ready.wait(60)
            while not over.is_set():
                with connection.pipeline():
                    connection.execute(INSERT)
                    if telling:
                        connection.execute(NOTIFY)
                    connection.commit()
                done += 1
        counts.append(done)

    threads = [threading.Thread(target=insert) for _ in range(clients)]
    with psycopg.connect(store.conninfo, autocommit=True) as listener:
        listener.execute("LISTEN bench")
        for thread in threads:
            thread.start()
        ready.wait(60)
        began = time.perf_counter()
        over.wait(seconds)
        over.set()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - began)
