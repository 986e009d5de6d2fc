"""The objects beside the tables: a view, triggers, routines, events, a role and accounts with grants.

KubePolaris itself has none of them; ordinary applications do. Run after the rows are in, by root, and written to the binlog.
The trigger on `users` counts logins: were it to fire a second time while the binlog is replayed, the sums would be wrong. The
log tables have none: they come back behind the others, which takes tables without triggers. One event is enabled, far in the
future: a restore must neither lose nor run it.
"""

from __future__ import annotations

from typing import Any

import pymysql

from demo import data, planted

APPLICATION = "kubepolaris"  # the account the application uses
APPLICATION_PASSWORD = f"{planted.MARKER}-app-password"
PLANTED_ACCOUNTS = (f"'{APPLICATION}'@'%'", "'o''dd 用户'@'localhost'", "'kp_viewer'")  # the last is a role

OBJECTS = (
    "CREATE SQL SECURITY INVOKER VIEW `active_users` AS SELECT `id`, `username`, '-- Dump; ''completed''' AS `note` FROM `users`"
    " WHERE `deleted_at` IS NULL",
    "CREATE VIEW `a_cluster_overview` AS SELECT `c`.`name`, count(`s`.`id`) AS `sessions`, `u`.`username` AS `creator`"
    " FROM `clusters` `c` LEFT JOIN `terminal_sessions` `s` ON `s`.`cluster_id` = `c`.`id`"
    " LEFT JOIN `active_users` `u` ON `u`.`id` = `c`.`created_by`"
    " GROUP BY `c`.`id`, `c`.`name`, `u`.`username`",
    "CREATE TRIGGER `count_logins` AFTER UPDATE ON `users` FOR EACH ROW BEGIN"
    " IF NEW.id = 1 AND NOT (NEW.last_login_at <=> OLD.last_login_at) THEN"
    " UPDATE `cluster_capacity` SET `memory_mib` = `memory_mib` + 1 WHERE `cluster_id` = 5;"
    " END IF; END",
    "CREATE TRIGGER `mask_value` BEFORE INSERT ON `system_settings` FOR EACH ROW SET NEW.value ="
    " replace(NEW.value, '\"password\":', '\"密码***\":')",
    "CREATE FUNCTION `days_since`(`moment` datetime(3)) RETURNS int DETERMINISTIC COMMENT 'DELIMITER ;; in a comment'\n"
    "BEGIN\n  -- a comment; with a semicolon\n  RETURN timestampdiff(DAY, `moment`, '2026-12-31');\nEND",
    "CREATE PROCEDURE `purge_logs`(IN `keep_days` int) MODIFIES SQL DATA\n"
    "BEGIN\n  DELETE FROM `operation_logs` WHERE `days_since`(`created_at`) > `keep_days`; /* 清理 */\nEND",
    "CREATE EVENT `nightly_purge` ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 02:00:00' ON COMPLETION PRESERVE ENABLE"
    " COMMENT '每晚' DO CALL `purge_logs`(365)",
    "CREATE EVENT `switched_off` ON SCHEDULE EVERY 1 HOUR STARTS '2037-01-01 00:00:00' DISABLE"
    " DO DELETE FROM `audit_logs` WHERE `id` < 0",
)

ACCOUNTS = (
    "CREATE ROLE 'kp_viewer'",
    f"GRANT SELECT ON `{data.DATABASE}`.* TO 'kp_viewer'",
    f"CREATE USER '{APPLICATION}'@'%' IDENTIFIED BY '{APPLICATION_PASSWORD}'",
    f"GRANT ALL ON `{data.DATABASE}`.* TO '{APPLICATION}'@'%'",
    "CREATE USER 'o''dd 用户'@'localhost' IDENTIFIED BY 'x' WITH MAX_QUERIES_PER_HOUR 9 ACCOUNT LOCK",
    f"GRANT SELECT (`id`, `username`) ON `{data.DATABASE}`.`users` TO 'o''dd 用户'@'localhost'",
    f"GRANT EXECUTE ON FUNCTION `{data.DATABASE}`.`days_since` TO 'o''dd 用户'@'localhost' WITH GRANT OPTION",
    "GRANT 'kp_viewer' TO 'o''dd 用户'@'localhost'",
    "SET DEFAULT ROLE 'kp_viewer' FOR 'o''dd 用户'@'localhost'",
)


def create(connection: pymysql.Connection[Any]) -> None:
    """Creates all objects and accounts in the loaded database."""
    with connection.cursor() as cursor:
        cursor.execute(f"USE `{data.DATABASE}`")
        cursor.execute("SET SESSION sql_mode = 'STRICT_TRANS_TABLES'")
        for statement in (*OBJECTS, *ACCOUNTS):
            cursor.execute(statement)
