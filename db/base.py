"""Engine, sessions and column types: the same for SQLite and PostgreSQL."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

#: Seconds that a SQLite writer waits for another one.
SQLITE_BUSY_SECONDS = 30


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time: refuses naive ones on the way in, gives aware ones back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC; SQLite keeps no zone, so every stored time is UTC by construction."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive time must not reach the database; use datetime.now(UTC)")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the zone back that SQLite dropped."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """The declarative base; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declarative contract
        datetime: UtcDateTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Database:
    """One database, reached by short transactions.

    `write()` is a transaction that commits when its block ends and rolls back when it raises; on
    SQLite it takes the write lock at once, because a reader that upgrades may be refused at commit.
    `read()` never writes.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(begin="BEGIN IMMEDIATE")

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are committed together."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for migrations and tests."""
        return self._engine

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_supported(url: str) -> bool:
    """Whether a URL names a database that the tables are tested on."""
    try:
        return make_url(url).get_backend_name() in ("sqlite", "postgresql")
    except ArgumentError:
        return False


def _engine(url: str) -> Engine:
    """The engine for a URL, with SQLite's durability settings where it is SQLite.

    Its errors do not show a statement's parameters: they may name a patient, and errors are logged.
    """
    if make_url(url).get_backend_name() != "sqlite":
        # Prepared plans are made while the tables are small, and kept: a batch of 200 paths then took
        # 140 ms instead of 5 ms. A pooler between us and the server may not keep them either.
        unprepared = {"prepare_threshold": None}
        engine = create_engine(
            url, pool_pre_ping=True, json_serializer=_json, connect_args=unprepared, hide_parameters=True
        )
        event.listen(engine, "connect", _without_jit)
        return engine
    engine = create_engine(
        url, connect_args={"timeout": SQLITE_BUSY_SECONDS}, json_serializer=_json, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes late and deferred; we say it ourselves below.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _without_jit(connection: Any, _record: Any) -> None:
    """Let no query be compiled: all of ours are short, and PostgreSQL took 2 s to compile one of 2 ms."""
    connection.autocommit = True
    connection.execute("SET jit TO off")
    connection.autocommit = False


def _json(value: Any) -> str:
    """JSON that every database takes: NaN and the infinities, which a DICOM file may hold, as text."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    """The value with text in place of the numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def insert_missing(session: Session, table: type[Base], rows: list[dict[str, Any]], key: list[str]) -> None:
    """Insert the rows whose unique `key` columns are not there yet; leave the others as they are."""
    if not rows:
        return
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        session.execute(postgresql.insert(table).on_conflict_do_nothing(index_elements=key), rows)
    else:
        session.execute(sqlite.insert(table).on_conflict_do_nothing(index_elements=key), rows)
