"""Account statements of the binlog against the target's own accounts: executed, left out, or refused.

The rule (D13) is that of the load: the server's own accounts, those of managed services and the one the restore logs in
with are never touched; others that were on the target before it only with --replace-users. A statement about such
accounts alone is left out; one about them and others together cannot be split and is refused by name.

Pure. Direct changes of the rows of account tables cannot be judged so and are refused too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kpbackup.mysql import accounts, query_event, statements
from kpbackup.mysql.quoting import account, identifier
from kpbackup.mysql.statements import Kind, Token

ACCOUNT_TABLES = frozenset({
    "user", "db", "host", "tables_priv", "columns_priv", "procs_priv", "proxies_priv", "global_priv", "roles_mapping",
    "role_edges", "default_roles", "global_grants", "password_history",
})


class Verdict(Enum):
    EXECUTE = "execute"
    LEAVE_OUT = "leave out"
    REFUSE = "refuse"


@dataclass(frozen=True)
class AccountRule:
    """`kept` are names (as in Definition.name) that were on the target and are not ours to change; `replaced` those that
    --replace-users gives free: before the binlog creates one of them, the target's is dropped."""

    kept: frozenset[str]
    replaced: frozenset[str] = frozenset()

    def judge(self, query: query_event.QueryEvent, *, mariadb: bool) -> tuple[Verdict, frozenset[str]]:
        """What to do with a statement, and the accounts that are the reason; (EXECUTE, those to drop first)."""
        client = int.from_bytes(query.variables.get(4, b"\xff\0")[:2], "little")
        text = statements.decoded(query.text, client)
        mode = int.from_bytes(query.variables.get(1, b"\0"), "little")
        statement = statements.read(text, sql_mode=mode)
        if statement.kind is not Kind.ACCOUNT:
            return Verdict.EXECUTE, frozenset()
        named = named_accounts(text, mode, mariadb=mariadb)
        touched = [spellings for spellings in named if any(map(self._is_kept, spellings))]
        if touched:
            is_all = len(touched) == len(named)
            return (Verdict.LEAVE_OUT if is_all else Verdict.REFUSE), frozenset().union(*touched)
        creates = statement.verb in ("CREATE USER", "CREATE ROLE")
        return Verdict.EXECUTE, frozenset().union(*named) & self.replaced if creates else frozenset()

    def _is_kept(self, name: str) -> bool:
        user = name.partition("`@`")[0].strip("`").replace("``", "`")
        return name in self.kept or user in accounts.RESERVED


def named_accounts(text: str, sql_mode: int = 0, *, mariadb: bool) -> list[frozenset[str]]:
    """The accounts that a statement is about: those created, altered, dropped, renamed, given to or taken from.

    Spelled as in Definition.name: `user`@`host`; a role of MariaDB, which has no host, as `role`. Where a statement does
    not tell which of the two it means, both spellings are given.
    """
    words = list(statements.tokens(text, sql_mode))
    kinds = {word.upper for word in words[:4]} if mariadb else {"USER"}
    return [_spellings(item, kinds) for item in _items(words) if item and (item[0].is_name or item[0].kind == "string")]


def _items(words: list[Token]) -> list[list[Token]]:
    """The parts of the list of accounts in a statement."""
    verb = words[0].upper if words else ""
    if verb in ("GRANT", "REVOKE", "SET"):
        marks = {"GRANT": ("TO",), "REVOKE": ("FROM",), "SET": ("FOR", "TO") if _is_default_role(words) else ("FOR",)}[verb]
        at = max((number for number, word in enumerate(words) if word.upper in marks and _depth(words, number) == 0), default=-1)
        return _comma_list(words[at + 1 :]) if at >= 0 else []
    at = next((number for number, word in enumerate(words[:8]) if word.upper in ("USER", "ROLE")), -1)
    rest = words[at + 1 :]
    while rest and rest[0].upper in ("IF", "NOT", "EXISTS"):
        rest = rest[1:]
    items = _comma_list(rest)
    if verb == "RENAME":
        return [side for item in items for side in _around(item, "TO")]
    return items


def _is_default_role(words: list[Token]) -> bool:
    return any(word.upper == "ROLE" for word in words[1:3])


def _depth(words: list[Token], at: int) -> int:
    return sum((word.value == "(") - (word.value == ")") for word in words[:at] if word.kind == "symbol")


def _comma_list(words: list[Token]) -> list[list[Token]]:
    found: list[list[Token]] = [[]]
    depth = 0
    for word in words:
        if word.kind == "symbol":
            depth += (word.value == "(") - (word.value == ")")
            if word.value == "," and depth == 0:
                found.append([])
                continue
        found[-1].append(word)
    return found


def _around(words: list[Token], sign: str) -> list[list[Token]]:
    at = next((number for number, word in enumerate(words) if word.upper == sign), len(words))
    return [words[:at], words[at + 1 :]]


def _spellings(item: list[Token], kinds: set[str]) -> frozenset[str]:
    user = _text(item[0])
    if len(item) > 2 and item[1].value == "@":
        return frozenset({account(user, _text(item[2]))})
    if "USER" in kinds:
        return frozenset({account(user, "%")})
    if "ROLE" in kinds and kinds & {"CREATE", "DROP"}:
        return frozenset({identifier(user)})
    return frozenset({account(user, "%"), identifier(user)})  # a role, or a user with the usual host: only the server knows


def _text(token: Token) -> str:
    if token.kind != "string":
        return token.value
    return token.value[1:-1].replace(token.value[0] * 2, token.value[0])
