"""Whether a server can be backed up or restored into: findings with reasons, decided from facts alone.

Pure functions over values read before; `doctor` prints them, a backup or restore stops at the first error. Limits:
what managed services hide (their own binlog retention) cannot be seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kpbackup.mysql.facts import ServerFacts, version_tuple
from kpbackup.mysql.privileges import Privileges
from kpbackup.mysql.quoting import identifier

Severity = Literal["ok", "warning", "error"]

ROWS = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")  # on every database that is backed up
ARCHIVE = ("REPLICATION SLAVE", "REPLICATION CLIENT")  # on *.*
OLDEST = {"mariadb": (10, 5), "mysql": (8, 0)}
MARIADB_ONLY_NAME = {"REPLICATION CLIENT": "BINLOG MONITOR"}
RESTORE = (
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "LOCK TABLES",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "TRIGGER",
    "EVENT",
)


@dataclass(frozen=True)
class Finding:
    """One judged fact: what was found, why it matters, how to mend it ('' when ok)."""

    severity: Severity
    what: str
    why: str = ""
    mend: str = ""


def source_findings(
    facts: ServerFacts,
    privileges: Privileges,
    *,
    databases: tuple[str, ...] = (),
    schedule_interval_s: int = 3600,
) -> list[Finding]:
    """Findings about a source; `databases` () means all, `schedule_interval_s` is the time between incrementals."""
    found = [*_version(facts), *_binlog(facts, schedule_interval_s), *_position(facts)]
    found += _needed(facts, privileges, databases)
    found += _better(facts, privileges, databases)
    return found


def source_grant(facts: ServerFacts, account: str) -> str:
    """The GRANT that gives a source account everything a backup can use."""
    return grant(facts, (*ROWS, "LOCK TABLES", *_recommended(facts), *ARCHIVE), account)


def grant(facts: ServerFacts, names: Iterable[str], account: str, *, schema: str | None = None) -> str:
    """A GRANT statement with the privileges' names in the server's flavour, without doubles."""
    given = [MARIADB_ONLY_NAME.get(n, n) if facts.mariadb and facts.version >= (10, 5) else n for n in dict.fromkeys(names)]
    return f"GRANT {', '.join(given)} ON {identifier(schema) if schema else '*'}.* TO {account};"


def _version(facts: ServerFacts) -> list[Finding]:
    what = f"{facts.flavour} {facts.version_string}"
    if facts.version < OLDEST[facts.flavour]:
        return [Finding("error", what, "older than any version kpbackup was written for", "upgrade the server")]
    return [Finding("ok", what)]


def _binlog(facts: ServerFacts, interval_s: int) -> list[Finding]:
    if not facts.log_bin:
        return [
            Finding(
                "error",
                "the binlog is off",
                "without it nothing after a full backup can be recovered",
                "set log_bin=binlog and a server_id in the server's configuration and restart it",
            )
        ]
    found = []
    if facts.binlog_format != "ROW":
        found.append(
            Finding(
                "error",
                f"binlog_format is {facts.binlog_format}",
                "statements replayed later may give other rows",
                "SET GLOBAL binlog_format='ROW'; and the same in the server's configuration",
            )
        )
    if facts.binlog_row_image != "FULL" and facts.binlog_row_image != "FULL_NODUP":
        found.append(
            Finding(
                "warning",
                f"binlog_row_image is {facts.binlog_row_image}",
                "changes lack the columns that were not touched: searching and filtering them is limited",
                "SET GLOBAL binlog_row_image='FULL'; and the same in the server's configuration",
            )
        )
    if 0 < facts.binlog_expire_s < 2 * interval_s:
        found.append(
            Finding(
                "warning",
                f"binlogs are purged after {facts.binlog_expire_s} s",
                f"one missed run of the schedule (every {interval_s} s) and a binlog is lost before it is archived",
                f"SET GLOBAL binlog_expire_logs_seconds={max(24 * interval_s, 86_400)}; and the same in the configuration",
            )
        )
    if facts.server_id == 0:
        found.append(Finding("error", "server_id is 0", "the server refuses replication connections", "set a server_id"))
    return found or [Finding("ok", "the binlog is on, in ROW format, with full row images")]


def _position(facts: ServerFacts) -> list[Finding]:
    found = []
    if facts.is_replica and not facts.log_replica_updates:
        found.append(
            Finding(
                "error",
                "a replica without log_replica_updates",
                "changes that come from its source are not in its binlog, so they cannot be archived here",
                "set log_slave_updates=ON (MySQL 8.0.26 on: log_replica_updates) and restart, or back up the source",
            )
        )
    if facts.gtid_mode not in ("", "ON"):
        found.append(
            Finding(
                "warning",
                f"gtid_mode is {facts.gtid_mode}",
                "the archive cannot be continued on another server after a failover, nor restored to a GTID",
                "switch gtid_mode on step by step, as the MySQL manual says; not needed for a single server",
            )
        )
    return found


def _needed(facts: ServerFacts, privileges: Privileges, databases: tuple[str, ...]) -> list[Finding]:
    found = []
    archive = [name for name in ARCHIVE if not privileges.has(name)]
    if archive:
        found.append(
            Finding(
                "error",
                f"missing privilege {', '.join(archive)}",
                "binlog positions and events cannot be read",
                grant(facts, archive, privileges.account),
            )
        )
    if not databases and not privileges.has("SELECT"):
        found.append(
            Finding(
                "warning",
                "no SELECT on all databases",
                "databases the account cannot see are not backed up, in silence",
                grant(facts, ROWS, privileges.account) + " or name source.databases",
            )
        )
    for schema in databases:
        missing = [name for name in ROWS if not privileges.has_on(name, schema)]
        if missing:
            found.append(
                Finding(
                    "error",
                    f"missing privilege {', '.join(missing)} on {schema}",
                    "its objects cannot all be read",
                    grant(facts, missing, privileges.account, schema=schema),
                )
            )
    if not databases and privileges.has("SELECT"):
        missing = [name for name in ROWS if not privileges.has(name)]
        if missing:
            found.append(
                Finding(
                    "error",
                    f"missing privilege {', '.join(missing)}",
                    "views, triggers or events cannot be read",
                    grant(facts, missing, privileges.account),
                )
            )
    return found or [Finding("ok", f"{privileges.account} may read databases and binlog")]


def _recommended(facts: ServerFacts) -> tuple[str, ...]:
    if facts.mariadb:
        return ("RELOAD", "PROCESS")
    return ("RELOAD", "PROCESS", "BACKUP_ADMIN", "XA_RECOVER_ADMIN", "SHOW_ROUTINE")


def _better(facts: ServerFacts, privileges: Privileges, databases: tuple[str, ...]) -> list[Finding]:
    account, found = privileges.account, []

    def missing(names: tuple[str, ...], why: str) -> None:
        absent = [name for name in names if not privileges.has(name)]
        if absent:
            found.append(Finding("warning", f"missing privilege {', '.join(absent)}", why, grant(facts, absent, account)))

    locks = ("RELOAD",) if facts.mariadb else ("RELOAD", "BACKUP_ADMIN")
    missing(locks, "the consistent point needs LOCK TABLES, or a moment without writes")
    if not privileges.has("RELOAD") and not _may_lock_tables(privileges, databases):
        found.append(
            Finding(
                "warning",
                "neither RELOAD nor LOCK TABLES",
                "only a moment without any write gives a consistent point",
                grant(facts, ("RELOAD",), account),
            )
        )
    if not facts.mariadb:
        missing(("XA_RECOVER_ADMIN",), "prepared XA transactions cannot be seen; one open at the backup would be lost")
        if not privileges.has("SELECT"):
            missing(("SHOW_ROUTINE",), "routines of other definers cannot be read")
    elif not privileges.has_on("SELECT", "mysql", "proc"):
        found.append(
            Finding(
                "warning",
                "no SELECT on mysql.proc",
                "routines of other definers cannot be read",
                f"GRANT SELECT ON mysql.proc TO {account};",
            )
        )
    if not privileges.has_on("SELECT", "mysql"):
        found.append(
            Finding(
                "warning",
                "no SELECT on mysql.*",
                "accounts and their grants are not backed up",
                f"GRANT SELECT ON mysql.* TO {account};",
            )
        )
    return found


def _may_lock_tables(privileges: Privileges, databases: tuple[str, ...]) -> bool:
    if not databases:
        return privileges.has("LOCK TABLES")
    return all(privileges.has_on("LOCK TABLES", schema) for schema in databases)


def target_findings(
    facts: ServerFacts,
    privileges: Privileges,
    *,
    flavour: str,
    version: str,
    settings: Mapping[str, str],
) -> list[Finding]:
    """Findings about a target; `flavour` and `version` are the source's from the manifest, `settings` its inventory's."""
    found = _kinship(facts, flavour, version)
    if any(one.severity == "error" for one in found):
        return found  # the rest would compare things that have nothing to do with each other
    found += _target_settings(facts, settings)
    found += _target_privileges(facts, privileges)
    return found


def _kinship(facts: ServerFacts, flavour: str, version: str) -> list[Finding]:
    if facts.flavour != flavour:
        return [
            Finding(
                "error",
                f"the target is {facts.flavour}, the backup is of {flavour}",
                "rows, definitions and binlogs of one cannot be loaded into the other",
                f"restore into a {flavour} server",
            )
        ]
    source = version_tuple(version)
    if facts.version[:2] < source[:2]:
        return [
            Finding(
                "error",
                f"the target is {facts.version_string}, older than the source's {version}",
                "an older server does not know all that a newer one wrote",
                f"restore into {version} or newer",
            )
        ]
    if facts.version < source:
        return [
            Finding(
                "warning",
                f"the target is {facts.version_string}, a little older than the source's {version}",
                "same series: known to work, never promised",
                "upgrade the target",
            )
        ]
    return [Finding("ok", f"the target is {facts.flavour} {facts.version_string}")]


def _target_settings(facts: ServerFacts, settings: Mapping[str, str]) -> list[Finding]:
    found = []
    names_rule = settings.get("lower_case_table_names", str(facts.lower_case_table_names))
    if names_rule != str(facts.lower_case_table_names):
        found.append(
            Finding(
                "error",
                f"lower_case_table_names is {facts.lower_case_table_names}, on the source {names_rule}",
                "tables whose names differ in case alone would fall together or not be found",
                f"initialise the target with lower_case_table_names={names_rule}",
            )
        )
    if facts.event_scheduler == "ON":
        found.append(
            Finding(
                "error",
                "event_scheduler is ON",
                "restored events would change rows during the restore",
                "SET GLOBAL event_scheduler=OFF; and switch it on again after the restore",
            )
        )
    if facts.read_only:
        found.append(Finding("error", "the target is read_only", "nothing can be written", "SET GLOBAL read_only=OFF;"))
    packet = int(settings.get("max_allowed_packet", "0"))
    if facts.max_allowed_packet < packet:
        found.append(
            Finding(
                "warning",
                f"max_allowed_packet is {facts.max_allowed_packet}, on the source {packet}",
                "a row larger than it cannot be loaded",
                f"SET GLOBAL max_allowed_packet={packet};",
            )
        )
    page = settings.get("innodb_page_size", str(facts.innodb_page_size))
    if page != str(facts.innodb_page_size):
        found.append(
            Finding(
                "warning",
                f"innodb_page_size is {facts.innodb_page_size}, on the source {page}",
                "long index keys and rows may be refused",
                f"initialise the target with innodb_page_size={page}",
            )
        )
    if facts.sql_require_primary_key and settings.get("sql_require_primary_key", "OFF") != "ON":
        found.append(
            Finding(
                "error",
                "sql_require_primary_key is ON, on the source OFF",
                "tables without a primary key would be refused",
                "SET GLOBAL sql_require_primary_key=OFF;",
            )
        )
    return found


def _target_privileges(facts: ServerFacts, privileges: Privileges) -> list[Finding]:
    found = []
    missing = [name for name in RESTORE if not privileges.has(name)]
    if missing:
        found.append(
            Finding(
                "error",
                f"missing privilege {', '.join(missing)}",
                "objects and rows cannot be written",
                grant(facts, missing, privileges.account),
            )
        )
    definer: tuple[str, ...]
    if facts.mariadb:
        definer = () if privileges.has_any("SUPER", "SET USER") else ("SET USER",)
    elif facts.version >= (8, 2):
        definer = tuple(n for n in ("SET_ANY_DEFINER", "ALLOW_NONEXISTENT_DEFINER") if not privileges.has(n))
    else:
        definer = () if privileges.has_any("SUPER", "SET_USER_ID") else ("SET_USER_ID",)
    if definer:
        found.append(
            Finding(
                "error",
                f"missing privilege {', '.join(definer)}",
                "views, routines, triggers and events of other definers cannot be created",
                grant(facts, definer, privileges.account),
            )
        )
    if not privileges.has("CREATE USER"):
        found.append(
            Finding(
                "warning",
                "missing privilege CREATE USER",
                "accounts and grants cannot be restored",
                grant(facts, ("CREATE USER",), privileges.account),
            )
        )
    return found or [Finding("ok", f"{privileges.account} may write everything a restore needs")]
