"""What the tests of databases share: a database of their own, of either kind."""

from __future__ import annotations

import os
import uuid
from importlib.util import find_spec

import sqlalchemy as sa
from twisted.trial.unittest import SkipTest, TestCase

from chatserver.database import parse_url

REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference", "users.db")
"""The database that the reference server wrote. To be copied, not opened."""

REFERENCE_PASSWORDS = {
    "alice": "correct horse",
    "bob": "pass:with:colons",
    "carol": "carol's secret",
    "dörte": "größer als acht",
    "Max Mustermann": "pw pw",
    "x": "1",
    "дзай": "пароль",
    "a-name-that-is-longer-than-thirty-two-characters": "colon:in:it",
}
"""The accounts in it and their passwords."""

POSTGRESQL = "ASYNCCHAT_TEST_POSTGRESQL"
"""The environment variable with the URL of a PostgreSQL database for the tests."""


def sqlite_url(test: TestCase) -> sa.URL:
    """Return a URL for a file, not yet there, in a new folder of `test`."""
    folder = os.path.abspath(test.mktemp())
    os.mkdir(folder)
    return parse_url("sqlite:///users.db", folder)


def postgresql_url(test: TestCase) -> sa.URL:
    """Return a URL for a new schema in PostgreSQL, which goes away at the end of `test`."""
    text = os.environ.get(POSTGRESQL)
    if not text:
        raise SkipTest(f"{POSTGRESQL} is not set: no PostgreSQL to test with")
    if find_spec("psycopg") is None:
        raise SkipTest("psycopg is not installed: PostgreSQL can't be tested")
    url = parse_url(text, os.getcwd())
    schema = f"asyncchat_test_{uuid.uuid4().hex}"

    def drop() -> None:
        execute(url, f"DROP SCHEMA {schema} CASCADE")

    execute(url, f"CREATE SCHEMA {schema}")
    test.addCleanup(drop)
    return url.update_query_dict({"options": f"-csearch_path={schema}"})


def execute(url: sa.URL, *statements: str) -> list[tuple[object, ...]]:
    """Run `statements` over a connection of its own and return the rows of the last one."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()
