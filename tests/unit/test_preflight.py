"""Findings about sources and targets, and the choice of the rung, from facts alone."""

from __future__ import annotations

import dataclasses

from kpbackup.model.inventory import Column, Table
from kpbackup.mysql import findings, preflight
from kpbackup.mysql.facts import ServerFacts, facts_of, version_tuple
from kpbackup.mysql.findings import Finding
from kpbackup.mysql.preflight import source_findings, target_findings
from kpbackup.mysql.privileges import Privileges, parse
from kpbackup.mysql.snapshot import Rung, ladder

MARIADB = facts_of(
    {
        "version": "10.11.19-MariaDB-log",
        "server_id": "7",
        "log_bin": "ON",
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "log_slave_updates": "ON",
        "read_only": "OFF",
        "gtid_strict_mode": "ON",
        "lower_case_table_names": "0",
        "max_allowed_packet": "16777216",
        "expire_logs_days": "0.5",
        "event_scheduler": "OFF",
    },
    flavour="mariadb",
    is_replica=False,
)
MYSQL = facts_of(
    {
        "version": "9.7.4-2",
        "server_id": "7",
        "log_bin": "ON",
        "gtid_mode": "ON",
        "log_replica_updates": "ON",
        "read_only": "OFF",
        "lower_case_table_names": "0",
        "max_allowed_packet": "67108864",
        "binlog_expire_logs_seconds": "2592000",
        "server_uuid": "u",
    },
    flavour="mysql",
    is_replica=False,
)
EVERYTHING = parse(["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`"], account="'root'@'localhost'")
NOTHING = Privileges("'kp'@'%'", frozenset({"USAGE"}))


def worst(findings: list[Finding]) -> list[str]:
    return [f.what for f in findings if f.severity == "error"]


def mends(findings: list[Finding]) -> str:
    return "\n".join(f.mend for f in findings)


def change(facts: ServerFacts, **changes: object) -> ServerFacts:
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


def table(name: str, *, transactional: bool = True) -> Table:
    return Table("shop", name, "InnoDB", "", (Column("a", "int", "int"),), ("a",), transactional)


def test_facts_are_read_from_variables() -> None:
    assert MARIADB.version == (10, 11, 19) and MARIADB.mariadb and MARIADB.binlog_expire_s == 43_200
    assert (
        MYSQL.gtid_mode == "ON"
        and MYSQL.binlog_format == "ROW"
        and MYSQL.log_replica_updates
        and MYSQL.binlog_expire_s == 2_592_000
    )
    never = facts_of(
        {"version": "9.7.4", "binlog_expire_logs_seconds": "60", "binlog_expire_logs_auto_purge": "OFF"},
        flavour="mysql",
        is_replica=False,
    )
    assert never.binlog_expire_s == 0
    assert version_tuple("8.0.36-28.1") == (8, 0, 36)


def test_a_fit_source_has_no_complaints() -> None:
    for facts in (change(MARIADB, binlog_expire_s=0), MYSQL):
        assert {f.severity for f in source_findings(facts, EVERYTHING)} == {"ok"}


def test_binlog_settings_are_judged() -> None:
    assert worst(source_findings(change(MARIADB, log_bin=False), EVERYTHING)) == ["the binlog is off"]
    assert worst(source_findings(change(MARIADB, binlog_format="MIXED"), EVERYTHING)) == ["binlog_format is MIXED"]
    assert worst(source_findings(change(MARIADB, server_id=0), EVERYTHING)) == ["server_id is 0"]
    image = source_findings(change(MARIADB, binlog_row_image="MINIMAL"), EVERYTHING)
    assert worst(image) == [] and "binlog_row_image is MINIMAL" in [f.what for f in image if f.severity == "warning"]


def test_retention_is_measured_against_the_schedule() -> None:
    def warned(expire_s: int) -> bool:
        findings = source_findings(change(MYSQL, binlog_expire_s=expire_s), EVERYTHING, schedule_interval_s=3600)
        return any("purged after" in f.what for f in findings)

    assert [warned(s) for s in (0, 3600, 7199, 7200)] == [False, True, True, False]


def test_a_replica_must_log_what_it_replays() -> None:
    replica = change(MARIADB, is_replica=True, log_replica_updates=False)
    assert worst(source_findings(replica, EVERYTHING)) == ["a replica without log_replica_updates"]
    assert worst(source_findings(change(replica, is_replica=False), EVERYTHING)) == []


def test_a_node_of_a_cluster_must_log_what_comes_from_the_others() -> None:
    both = {"log_bin": "ON", "server_id": "1", "gtid_mode": "ON"}
    galera = {**both, "version": "10.11.19-MariaDB", "wsrep_on": "ON", "wsrep_provider": "/lib/galera.so"}
    group = {**both, "version": "8.4.0", "group_replication_group_name": "aaaa"}
    for variables, flavour, name in ((galera, "mariadb", "Galera"), (group, "mysql", "Group Replication")):
        node = facts_of(variables, flavour=flavour, is_replica=False)
        assert node.cluster == name
        assert worst(source_findings(node, EVERYTHING)) == [f"a node of {name} without log_replica_updates"]
        assert worst(source_findings(change(node, log_replica_updates=True), EVERYTHING)) == []
    single = facts_of({**galera, "wsrep_provider": "none"}, flavour="mariadb", is_replica=False)
    assert single.cluster == MARIADB.cluster == MYSQL.cluster == ""


def test_gtid_mode_off_is_a_warning_on_mysql_alone() -> None:
    assert "gtid_mode is OFF" in [
        f.what for f in source_findings(change(MYSQL, gtid_mode="OFF"), EVERYTHING) if f.severity == "warning"
    ]
    assert not any("gtid_mode" in f.what for f in source_findings(MARIADB, EVERYTHING))


def test_missing_privileges_come_with_the_grant_of_the_flavour() -> None:
    on_mariadb = source_findings(MARIADB, NOTHING, databases=("a`b",))
    assert "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO 'kp'@'%';" in mends(on_mariadb)
    assert "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `a``b`.* TO 'kp'@'%';" in mends(on_mariadb)
    assert len(worst(on_mariadb)) == 2
    on_mysql = source_findings(MYSQL, NOTHING)
    assert "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'kp'@'%';" in mends(on_mysql)
    assert "GRANT RELOAD, BACKUP_ADMIN ON *.* TO 'kp'@'%';" in mends(on_mysql)
    assert "GRANT XA_RECOVER_ADMIN ON *.* TO 'kp'@'%';" in mends(on_mysql)


def test_the_advised_grant_is_enough() -> None:
    for facts in (change(MARIADB, binlog_expire_s=0), MYSQL):
        names = (*preflight.ROWS, "LOCK TABLES", *preflight._recommended(facts), *preflight.ARCHIVE)
        given = parse([findings.grant(facts, names, "`kp`@`%`").rstrip(";") + " "], account="'kp'@'%'")
        assert {f.severity for f in source_findings(facts, given)} == {"ok"}


def test_targets_are_refused_for_what_cannot_work() -> None:
    fit = {"lower_case_table_names": "0", "max_allowed_packet": "1048576", "innodb_page_size": "16384"}

    def judged(facts: ServerFacts, version: str = "10.11.19-MariaDB", flavour: str = "mariadb", **settings: str) -> list[str]:
        return worst(target_findings(facts, EVERYTHING, flavour=flavour, version=version, settings={**fit, **settings}))

    assert judged(MARIADB) == []
    assert judged(MARIADB, flavour="mysql") == ["the target is mariadb, the backup is of mysql"]
    assert "older than the source's 11.8.6" in judged(MARIADB, version="11.8.6-MariaDB")[0]
    assert judged(MARIADB, version="10.6.1") == []
    assert judged(MARIADB, lower_case_table_names="1") == ["lower_case_table_names is 0, on the source 1"]
    assert judged(change(MARIADB, event_scheduler="ON")) == ["event_scheduler is ON"]
    assert judged(change(MARIADB, read_only=True)) == ["the target is read_only"]
    patch = target_findings(MARIADB, EVERYTHING, flavour="mariadb", version="10.11.20", settings=fit)
    assert [f.severity for f in patch][0] == "warning" and worst(patch) == []


def test_a_target_account_needs_foreign_definers() -> None:
    usual = parse(
        [
            "GRANT CREATE, DROP, ALTER, INDEX, REFERENCES, SELECT, INSERT, UPDATE, DELETE, LOCK TABLES, CREATE VIEW, SHOW VIEW, "
            "CREATE ROUTINE, ALTER ROUTINE, TRIGGER, EVENT, CREATE USER ON *.* TO `r`@`%`"
        ],
        account="'r'@'%'",
    )
    on_mysql = target_findings(MYSQL, usual, flavour="mysql", version="9.7.4", settings={})
    assert worst(on_mysql) == ["missing privilege SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER"]
    on_mariadb = target_findings(MARIADB, usual, flavour="mariadb", version="10.11.19", settings={})
    assert "GRANT SET USER ON *.* TO 'r'@'%';" in mends(on_mariadb)


def test_grants_are_parsed() -> None:
    given = parse(
        [
            "GRANT SELECT, RELOAD, BINLOG MONITOR, REPLICATION REPLICA ON *.* TO `u`@`%` REQUIRE SSL WITH GRANT OPTION",
            "GRANT BACKUP_ADMIN,XA_RECOVER_ADMIN ON *.* TO `u`@`%`",
            "GRANT ALL PRIVILEGES ON `a\\_%`.* TO `u`@`%`",
            "GRANT SELECT (`a, b)`), LOCK TABLES ON `shop`.`t``1` TO `u`@`%`",
            "GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `u`@`%`",
            "GRANT PROXY ON ``@`` TO `u`@`%`",
            "GRANT `role`@`%` TO `u`@`%`",
            "REVOKE SELECT ON `mysql`.* FROM `u`@`%`",
            "SET DEFAULT ROLE `role` FOR `u`@`%`",
        ],
        account="'u'@'%'",
    )
    assert given.everywhere == {"SELECT", "RELOAD", "REPLICATION CLIENT", "REPLICATION SLAVE", "BACKUP_ADMIN", "XA_RECOVER_ADMIN"}
    assert given.has("binlog monitor") and given.has("REPLICATION CLIENT") and not given.has("EXECUTE")
    assert given.has_on("TRIGGER", "a_x") and not given.has_on("TRIGGER", "abx")
    assert given.has_on("SELECT", "shop") and not given.has_on("SELECT", "mysql")
    assert (
        given.has_on("LOCK TABLES", "shop", "t`1")
        and not given.has_on("LOCK TABLES", "shop")
        and not given.has_on("LOCK TABLES", "shop", "t")
    )


def test_the_ladder_offers_what_the_account_may_do() -> None:
    def rungs(facts: ServerFacts, *grants: str, tables: tuple[Table, ...] = (table("t"),)) -> tuple[Rung, ...]:
        return ladder(facts, parse(grants, account="'u'@'%'"), tables)

    reload, locks = "GRANT RELOAD ON *.* TO `u`@`%`", "GRANT SELECT, LOCK TABLES ON `shop`.* TO `u`@`%`"
    assert rungs(MARIADB, reload, locks) == (Rung.BACKUP_STAGE, Rung.FLUSH_TABLES, Rung.LOCK_TABLES, Rung.LOCK_FREE)
    assert rungs(change(MARIADB, version=(10, 3, 1)), reload)[0] is Rung.FLUSH_TABLES
    assert rungs(MARIADB, locks) == (Rung.LOCK_TABLES, Rung.LOCK_FREE)
    assert rungs(MARIADB) == (Rung.LOCK_FREE,)
    assert rungs(MYSQL, reload, "GRANT BACKUP_ADMIN ON *.* TO `u`@`%`")[0] is Rung.INSTANCE_LOCK_FTWRL
    assert rungs(MYSQL, "GRANT FLUSH_TABLES ON *.* TO `u`@`%`")[0] is Rung.FLUSH_TABLES
    assert rungs(change(MYSQL, gtid_mode="OFF")) == ()
    heap = (table("t"), table("heap", transactional=False))
    assert rungs(MARIADB, tables=heap) == ()
    assert rungs(MARIADB, locks, tables=heap) == (Rung.LOCK_TABLES,)
    elsewhere = (dataclasses.replace(heap[1], holds_rows=False),)
    assert rungs(MARIADB, tables=elsewhere) == (Rung.LOCK_FREE,)
