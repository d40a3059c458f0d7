"""No question that is asked all day reads a table that grows for years from one end to the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from db import migrate
from db.base import Database
from tests.support import history as histories
from tests.support.history import History
from tests.support.questions import COMMANDS, PEOPLE, QUESTIONS, SWEEP

STUDIES = 3000
_BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))]

#: What by its nature looks at every row: figures of everything, each from the narrowest index that there is.
WHOLE = {"page: counts", "metrics: images", "metrics: events"}
#: What is found by an index and then sorted: it is few, or the sort ends where the limit does.
SORTED = {"page: needs a person", "metrics: stages", "due commitments", "compared with"}
#: The newest rows but those of a kind: what is read is in the order of an index, and soon enough.
PASSING_OVER = {"page: events"}
ASKED = [name for group in QUESTIONS.values() for name in group if name not in WHOLE]
#: A search that names no index walks the ids, e.g. to the least one that has a property.
_SCAN = re.compile(r"SCAN (\w+?)(?:_\d+)?(?: |$)|SEARCH (\w+?)(?:_\d+)?$")


@pytest.fixture(scope="module", params=_BOTH)
def years(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Database, History]]:
    """A database after some years, of either kind."""
    history = History(studies=STUDIES, now=datetime.now(UTC), whole=2)
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('years') / 'secondread.db'}"
    else:
        url = request.getfixturevalue("cluster").create("years")
    with Database(url) as database:
        migrate.upgrade(database)
        history.write(database)
        yield database, history


@contextmanager
def said(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """The statements that the block executes and that have a plan, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


@contextmanager
def planner(database: Database) -> Iterator[Connection]:
    """A connection to ask for plans on."""
    with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # These tables are small: of two ways the one through a whole table may be the better, here.
            for way in ("seqscan", "hashjoin", "mergejoin"):
                connection.execute(text(f"SET LOCAL enable_{way} = off"))
        yield connection
        connection.rollback()


def whole_tables(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """What of large tables, or of whole indexes of them, a statement would read to the end, or sort."""
    read = _read_by_sqlite if connection.dialect.name == "sqlite" else _read_by_postgresql
    return read(connection, statement, parameters)


def _read_by_sqlite(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """From lines like "SCAN jobs" and "SEARCH jobs USING INDEX ..."."""
    lines = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    sorts = [line for line in lines if line == "USE TEMP B-TREE FOR ORDER BY" and "LIMIT" in statement]
    # A list without a condition reads in the order of an index, or of ids, up to its limit.
    limited = "WHERE" not in statement and "LIMIT" in statement and not sorts
    scans = [
        line
        for line in lines
        if (match := _SCAN.match(line)) and match[match.lastindex or 0] in histories.TABLES
    ]
    return [*sorts, *(line for line in scans if not limited and not _names_partial(line))]


def _read_by_postgresql(connection: Connection, statement: str, parameters: Any) -> list[str]:
    """From nodes: a Seq Scan, or an Index Scan without a condition that no Limit ends."""
    (plans,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    plans = json.loads(plans) if isinstance(plans, str) else plans
    return list(_whole_nodes(plans[0]["Plan"], limited=False))


def _whole_nodes(node: dict[str, Any], *, limited: bool) -> Iterator[str]:
    kind, table = node["Node Type"], node.get("Relation Name", "")
    # What sorts, groups or hashes takes all that is below it, whatever the limit above.
    limited = (limited or kind == "Limit") and kind not in ("Sort", "Hash", "Aggregate", "Materialize")
    unbounded = "Index Cond" not in node and not limited and not _names_partial(node.get("Index Name", ""))
    if table in histories.TABLES and (kind == "Seq Scan" or ("Index" in kind and unbounded)):
        yield f"{kind} of {table}"
    for below in node.get("Plans", ()):
        yield from _whole_nodes(below, limited=limited)


def _names_partial(index: str) -> bool:
    """Whether an index is one that holds only the few rows that are meant."""
    return "ix_studies_in_trouble" in index or "ix_deliveries_lease_until" in index


@pytest.mark.parametrize("name", ASKED)
def test_no_question_reads_a_large_table_to_its_end(years: tuple[Database, History], name: str) -> None:
    database, history = years
    ask = next(group[name] for group in QUESTIONS.values() if name in group)
    with database.read() as session:
        with said(database.engine) as statements:
            ask(session, history)
        session.rollback()
    assert statements
    bad = {}
    with planner(database) as connection:
        for statement, parameters in statements:
            found = whole_tables(connection, statement, parameters)
            excused = {"USE TEMP B-TREE FOR ORDER BY"} if name in SORTED else set()
            excused |= {"SCAN events USING INDEX ix_events_at"} if name in PASSING_OVER else set()
            if set(found) - excused:
                bad[statement] = found
    assert bad == {}


def test_every_question_has_a_name_of_its_own() -> None:
    assert len({*COMMANDS, *PEOPLE, *SWEEP}) == len(COMMANDS) + len(PEOPLE) + len(SWEEP)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT id FROM studies WHERE study_description = 'x'",
        "SELECT id FROM studies WHERE study_description = 'x' ORDER BY study_date LIMIT 5",
        "SELECT count(*) FROM jobs WHERE error = 'x'",
        "SELECT id FROM deliveries WHERE comment IN (SELECT path FROM result_objects)",
        "UPDATE events SET message = 'x' WHERE message = 'y'",
    ],
)
def test_the_test_knows_what_it_looks_for(years: tuple[Database, History], statement: str) -> None:
    database, _ = years
    with planner(database) as connection:
        assert whole_tables(connection, statement, ())
