"""How fast the tables answer after years of work: 100,000 studies, in SQLite and in PostgreSQL.

    python -m benchmarks.queries [--studies 100000] [--rounds 30] [--folder FOLDER]

Fills each database with that many studies (three series, three jobs, six objects and deliveries each; see
tests/support/history.py), then asks what the commands, the page, the metrics and the sweep ask, through the
product's own functions, each time in a new session. Prints median and 95th percentile in milliseconds, and
whether the slower one keeps the bar of 50 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from db import migrate
from db.base import Database
from tests.support.history import History
from tests.support.postgres import postgres_cluster
from tests.support.questions import QUESTIONS, Question

BAR_MS = 50.0


@contextmanager
def databases(folder: Path, history: History) -> Iterator[dict[str, Database]]:
    """Both kinds of database, filled."""
    with ExitStack() as stack:
        # Durable as in production: what is read is the same, what is written is rolled back.
        cluster = stack.enter_context(postgres_cluster(folder, "shared_buffers=256MB"))
        urls = {"SQLite": f"sqlite:///{folder / 'secondread.db'}", "PostgreSQL": cluster.create("secondread")}
        opened = {name: stack.enter_context(Database(url)) for name, url in urls.items()}
        for name, database in opened.items():
            started = time.perf_counter()
            migrate.upgrade(database)
            history.write(database)
            print(f"{name}: filled in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        yield opened


def milliseconds(database: Database, history: History, ask: Question, rounds: int) -> list[float]:
    """How long each answer took, a session and its connection included; nothing is kept."""
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        with database.read() as session:
            ask(session, history)
            taken.append((time.perf_counter() - started) * 1000)
            session.rollback()
    return taken


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--folder", type=Path, help="Where the databases are made; default: a temporary folder."
    )
    options = parser.parse_args()
    history = History(studies=options.studies, now=datetime.now(UTC))
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix="queries-") as folder,
        databases(Path(folder), history) as opened,
    ):
        rows = ", ".join(f"{count:,} {name}" for name, count in history.counts.items())
        print(f"{rows}; {options.rounds} rounds; ms, median (95th percentile)\n")
        print(f"| question | {' | '.join(opened)} | <= {BAR_MS:.0f} ms |")
        print("|---|---:|---:|---|")
        for group, questions in QUESTIONS.items():
            for name, ask in questions.items():
                taken = [milliseconds(database, history, ask, options.rounds) for database in opened.values()]
                pairs = [
                    (statistics.median(each), sorted(each)[round(0.95 * (len(each) - 1))]) for each in taken
                ]
                cells = " | ".join(f"{median:.1f} ({late:.1f})" for median, late in pairs)
                kept = "yes" if max(late for _, late in pairs) <= BAR_MS else "NO"
                print(f"| {group}: {name} | {cells} | {kept} |", flush=True)


if __name__ == "__main__":
    main()
