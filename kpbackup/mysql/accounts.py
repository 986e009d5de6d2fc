"""Users, roles, passwords (as hashes), limits, grants and default roles, as Definitions.

`account` definitions create, `grant` definitions give; all of the first come before any of the second, since roles may be
granted to each other. Left out: the server's own accounts, those of managed services, and root: a restore must never
touch the accounts it lives by. Limit: MySQL's password history is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kpbackup import errors
from kpbackup.model.inventory import Definition
from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.quoting import account, identifier, literal
from kpbackup.mysql.schema_tables import text
from kpbackup.mysql.server import Connection

RESERVED = frozenset(
    {
        "root",
        "mysql",
        "mysql.sys",
        "mysql.session",
        "mysql.infoschema",
        "mariadb.sys",
        "debian-sys-maint",  # the server's own
        "rdsadmin",
        "rdsrepladmin",
        "rdsproxyadmin",
        "rdstopmgr",
        "rds_superuser_role",
        "rds_replication",
        "event_scheduler",  # Amazon
        "AWS_BEDROCK_ACCESS",
        "AWS_COMPREHEND_ACCESS",
        "AWS_LAMBDA_ACCESS",
        "AWS_LOAD_S3_ACCESS",
        "AWS_SAGEMAKER_ACCESS",
        "AWS_SELECT_S3_ACCESS",
        "azure_superuser",
        "azure_su",
        "azure_superuser_su",
        "cloudsqladmin",
        "cloudsqlapplier",
        "cloudsqlexport",
        "cloudsqlimport",
        "cloudsqlinactiveuser",
        "cloudsqlobservabilityadmin",
        "cloudsqloneshot",
        "cloudsqlreplica",
        "cloudsqlsuperuser",  # Azure, Google
    }
)
_MYSQL_USERS = """SELECT user, host, user_attributes->>'$.additional_password', ssl_cipher, x509_issuer, x509_subject
  FROM mysql.user ORDER BY user, host"""
_PASSWORD = re.compile(r"(?P<plugin> IDENTIFIED WITH '\w+') AS 0x[0-9A-Fa-f]+")
UNSHOWN = (1133, 1141)  # an account by host name on a server with skip_name_resolve
PUBLIC = "PUBLIC"  # MariaDB's role of everyone, there from the start

_STRING = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL)
_DEFAULT_ROLE = re.compile(r" DEFAULT ROLE ((?:`(?:[^`]|``)*`@`(?:[^`]|``)*`,?\s*)+)")


def read_accounts(
    connection: Connection,
    facts: ServerFacts,
    *,
    exclude: Iterable[str] = (),
) -> tuple[list[Definition], list[str]]:
    """(accounts first, then grants; warnings). No privilege to read them gives no definitions and one warning.

    `exclude` adds user names to RESERVED.
    """
    left_out = RESERVED | set(exclude)
    reader = _mariadb if facts.mariadb else _mysql
    try:
        return reader(connection, left_out)
    except errors.PrivilegeMissing as exc:
        return [], [f"accounts and grants are not in this backup: {exc.message}; they need SELECT on mysql.*"]


def names(connection: Connection, facts: ServerFacts) -> frozenset[str]:
    """The names (as in Definition.name) of all accounts of a server, reserved ones too: what a restore may collide with."""
    if facts.mariadb:
        rows = connection.rows("SELECT user, host, is_role FROM mysql.user")
        return frozenset(identifier(text(u)) if text(role) == "Y" else account(text(u), text(h)) for u, h, role in rows)
    return frozenset(account(text(u), text(h)) for u, h in connection.rows("SELECT user, host FROM mysql.user"))


def _mariadb(connection: Connection, left_out: frozenset[str]) -> tuple[list[Definition], list[str]]:
    rows = connection.rows("SELECT user, host, is_role FROM mysql.user ORDER BY user, host")
    kept = [(text(user), text(host), text(role) == "Y") for user, host, role in rows if text(user) not in left_out]
    given: list[Definition] = []
    created: list[Definition] = []
    warnings: list[str] = []
    for user, host, role in kept:
        who = PUBLIC if role and user == PUBLIC else identifier(user) if role else account(user, host)
        try:
            if not role:
                created.append(Definition("account", "", who, _column(connection, f"SHOW CREATE USER {who}")))
            elif who != PUBLIC:
                created.append(Definition("account", "", who, (f"CREATE ROLE {who}",)))
            listed = _column(connection, f"SHOW GRANTS FOR {who}")
            grants = tuple(_rights_alone(line, who) for line in listed if _gives_to(line, who))
        except errors.DatabaseError as exc:
            if exc.number not in UNSHOWN:
                raise
            warnings.append(f"account {who} is not in this backup: the server cannot show it ({exc.message})")
            continue
        if grants:
            given.append(Definition("grant", "", who, grants))
    return created + given, warnings


def _column(connection: Connection, sql: str) -> tuple[str, ...]:
    return tuple(text(row[0]) for row in connection.rows(sql))


def _gives_to(line: str, who: str) -> bool:
    """Whether a line of SHOW GRANTS is the account's own: a role's listing shows those of its roles too."""
    return f" TO {who}" in line or (line.startswith("SET DEFAULT ROLE") and line.endswith(f" FOR {who}"))


def _rights_alone(line: str, who: str) -> str:
    """A GRANT without the password, TLS requirement and limits that MariaDB prints into the one on *.*.

    CREATE USER has given them, and a password given again would no longer be expired.
    """
    head, mark, tail = line.partition(f" ON *.* TO {who} ")
    if not mark or not head.startswith("GRANT "):
        return line
    option = " WITH GRANT OPTION" if " WITH GRANT OPTION" in _STRING.sub("", f" {tail}") else ""
    return f"{head}{mark.rstrip()}{option}"


def _mysql(connection: Connection, left_out: frozenset[str]) -> tuple[list[Definition], list[str]]:
    created: list[Definition] = []
    given: list[Definition] = []
    for user, host, second_password, *certificate in connection.rows(_MYSQL_USERS):
        if text(user) in left_out:
            continue
        who = account(text(user), text(host))
        grants = list(_column(connection, f"SHOW GRANTS FOR {who}"))
        create = _column(connection, f"SHOW CREATE USER {who}")[0]
        for demanded in map(text, certificate):  # the server prints quotes in them as they are
            create = create.replace(f" '{demanded}'", f" {literal(demanded)}") if demanded else create
        found = _DEFAULT_ROLE.search(create)
        if found:  # the role may not exist yet: set after all grants
            grants.append(f"SET DEFAULT ROLE {found[1].strip()} TO {who}")
            create = create[: found.start()] + " " + create[found.end() :].lstrip()
        created.append(Definition("account", "", who, tuple(_with_second_password(create.strip(), who, text(second_password)))))
        given.append(Definition("grant", "", who, tuple(grants)))
    return created + given, []


def _with_second_password(create: str, who: str, second: str) -> Iterator[str]:
    """The statements for an account that may have kept its last password beside the new one, which is not shown."""
    found = _PASSWORD.search(create) if second else None
    if found is None:
        yield create
        return
    yield f"{create[: found.start()]}{found['plugin']} AS 0x{second.encode().hex()}{create[found.end() :]}"
    yield f"ALTER USER {who}{found[0]} RETAIN CURRENT PASSWORD"
