"""Statements as they are shown: without the values of those who sent them."""

import pytest

from ml_assets.lib.sql import without_values


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT a FROM t WHERE b = $1", "SELECT a FROM t WHERE b = $1"),
        ("ALTER ROLE me PASSWORD 'it''s secret' VALID", "ALTER ROLE me PASSWORD '...' VALID"),
        (r"SET x = E'a\'b' , y = 'c'", "SET x = '...' , y = '...'"),
        ("SET x = 'C:\\' , y = 'd'", "SET x = '...' , y = '...'"),
        ("DO $$ BEGIN 'x' END $$ LANGUAGE sql", "DO '...' LANGUAGE sql"),
        ("DO $body$ a $$ b $body$", "DO '...'"),
        (
            """SELECT "it's" FROM t -- don't\n WHERE x = 'y'""",
            """SELECT "it's" FROM t -- don't WHERE x = '...'""",
        ),
        ("SELECT /* 'kept' */ 1 + $1 + $2", "SELECT /* 'kept' */ 1 + $1 + $2"),
        ("SET x = 'cut off", "SET x = '...'"),
        ("DO $$ cut off", "DO '...'"),
    ],
)
def test_string_constants_are_not_shown(statement, shown):
    assert without_values(statement) == shown
