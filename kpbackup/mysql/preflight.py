"""Whether a server can be backed up: findings with reasons, decided from facts alone.

Pure functions over values read before; `doctor` prints them, a backup or restore stops at the first error. Limits:
what managed services hide (their own binlog retention) cannot be seen here.
"""

from __future__ import annotations

from kpbackup.mysql.facts import ServerFacts
from kpbackup.mysql.findings import Finding, grant
from kpbackup.mysql.preflight_target import target_findings as target_findings  # one module to ask, for doctor and restore
from kpbackup.mysql.privileges import Privileges

ROWS = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")  # on every database that is backed up
ARCHIVE = ("REPLICATION SLAVE", "REPLICATION CLIENT")  # on *.*
OLDEST = {"mariadb": (10, 5), "mysql": (8, 0)}


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
    if (facts.is_replica or facts.cluster) and not facts.log_replica_updates:
        found.append(
            Finding(
                "error",
                f"a {f'node of {facts.cluster}' if facts.cluster else 'replica'} without log_replica_updates",
                "changes that come from elsewhere are not in its binlog, so they cannot be archived here",
                "set log_slave_updates=ON (MySQL 8.0.26 on: log_replica_updates) and restart, or back up the source",
            )
        )
    if facts.replica_filters:
        found.append(
            Finding(
                "warning",
                f"a replica that filters ({facts.replica_filters})",
                "it does not hold what its filters leave out, so no backup of it does",
                "remove the replicate_* settings and make the replica anew, or back up its source",
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
