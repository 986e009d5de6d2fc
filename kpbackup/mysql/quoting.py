"""Names and texts as they stand in SQL.

Limit: `literal` is right only in a session without NO_BACKSLASH_ESCAPES; every session of this package is one.
"""

from __future__ import annotations


def identifier(name: str) -> str:
    """The name in backticks."""
    return "`" + name.replace("`", "``") + "`"


def qualified(schema: str, name: str) -> str:
    """`schema`.`name`."""
    return f"{identifier(schema)}.{identifier(name)}"


def literal(text: str) -> str:
    """The text as a string constant."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def account(user: str, host: str) -> str:
    """`user`@`host`, as the server prints accounts."""
    return f"{identifier(user)}@{identifier(host)}"
