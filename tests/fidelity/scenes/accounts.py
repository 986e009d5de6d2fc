"""Users, roles, passwords of every plugin, limits, TLS requirements, grants at every level, proxies, default roles."""

from __future__ import annotations

from tests.fidelity.scenes import Kind

DATABASES = ("granted", "gra_ted", "other%")


def statements(kind: Kind) -> list[str]:
    return [
        "CREATE DATABASE granted", "CREATE DATABASE gra_ted", "CREATE DATABASE `other%`", "USE granted",
        "CREATE TABLE t (id int PRIMARY KEY, `a b` int, c int, `d,e` int)", "CREATE VIEW v AS SELECT 1 AS one",
        "CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1", "CREATE PROCEDURE p() SELECT 1",
        *_common(kind), *(_mariadb(kind) if kind.mariadb else _mysql()),
    ]


def _common(kind: Kind) -> list[str]:
    return [
        "CREATE ROLE reader, writer, `odd role`, loner",
        "GRANT SELECT ON granted.* TO reader", "GRANT reader TO writer", "GRANT INSERT, UPDATE (`a b`, c) ON granted.t TO writer", "GRANT reader TO `odd role`",
        "CREATE USER app@'10.%' IDENTIFIED BY 'KP''s \\\\ secret' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 9 MAX_UPDATES_PER_HOUR 8 MAX_CONNECTIONS_PER_HOUR 7"
        " MAX_USER_CONNECTIONS 6 ACCOUNT LOCK",
        "CREATE USER `o'dd`@localhost IDENTIFIED BY 'x'", "CREATE USER `a\"b``c`@`%.example.com` IDENTIFIED BY 'x'", "CREATE USER ''@localhost",
        "CREATE USER `\u00fcser`@'192.168.0.0/255.255.255.0' IDENTIFIED BY '\u20ac\U0001f600'", "CREATE USER nopass@'%'", "CREATE USER expired@'%' IDENTIFIED BY 'x' PASSWORD EXPIRE",
        "CREATE USER never@'%' IDENTIFIED BY 'x' PASSWORD EXPIRE NEVER", "CREATE USER soon@'%' IDENTIFIED BY 'x' PASSWORD EXPIRE INTERVAL 30 DAY",
        "CREATE USER tls1@'%' IDENTIFIED BY 'x' REQUIRE X509", "CREATE USER tls2@'%' IDENTIFIED BY 'x' REQUIRE SUBJECT '/C=SE/O=its' AND ISSUER '/CN=ca' AND CIPHER 'ECDHE-RSA-AES256-GCM-SHA384'",
        "CREATE USER same@'%' IDENTIFIED BY 'a'", "CREATE USER same@'10.%' IDENTIFIED BY 'b'", "CREATE USER same@localhost IDENTIFIED BY 'c'",
        "GRANT SELECT (`a b`, `d,e`), INSERT (c), REFERENCES (id) ON granted.t TO app@'10.%'", "GRANT EXECUTE ON FUNCTION granted.f TO app@'10.%' WITH GRANT OPTION",
        "GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE granted.p TO `o'dd`@localhost", "GRANT writer TO app@'10.%' WITH ADMIN OPTION", "GRANT reader TO `o'dd`@localhost",
        "GRANT PROCESS, RELOAD, FILE ON *.* TO `o'dd`@localhost WITH GRANT OPTION", "GRANT ALL ON `gra\\_ted`.* TO `o'dd`@localhost", "GRANT ALL ON `gra_ted`.* TO never@'%'",
        "GRANT SELECT, SHOW VIEW ON `other\\%`.* TO soon@'%' WITH GRANT OPTION", "GRANT SELECT ON granted.v TO soon@'%'", "GRANT ALL ON *.* TO tls1@'%' WITH GRANT OPTION",
        "GRANT CREATE TEMPORARY TABLES, LOCK TABLES, EVENT, TRIGGER ON granted.* TO tls2@'%'", "GRANT ALL ON granted.t TO nopass@'%'",
        "GRANT DROP, CREATE ON granted.not_there TO nopass@'%'",
        "GRANT PROXY ON soon@'%' TO never@'%' WITH GRANT OPTION", "GRANT PROXY ON ''@'' TO tls1@'%'",
    ]


def _mariadb(kind: Kind) -> list[str]:
    return [
        "CREATE USER native@'%' IDENTIFIED VIA mysql_native_password USING '*23AE809DDACAF96AF0FD78ED04B6A265E05AA257'",
        "CREATE USER sock@localhost IDENTIFIED VIA unix_socket", "CREATE USER either@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('x')",
        "CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
        "CREATE USER three@'%' IDENTIFIED VIA ed25519 USING PASSWORD('s') OR mysql_native_password USING PASSWORD('t') OR unix_socket AS 'someone'",
        *(["CREATE USER pars@'%' IDENTIFIED VIA parsec USING PASSWORD('secret')"] if kind.version >= (11, 6) else []),
        "CREATE USER slow@'%' WITH MAX_STATEMENT_TIME 1.5", "SET DEFAULT ROLE writer FOR app@'10.%'", "GRANT SELECT ON granted.v TO PUBLIC",
        "CREATE ROLE admined WITH ADMIN app@'10.%'", "GRANT BINLOG MONITOR, SET USER, READ_ONLY ADMIN, REPLICATION SLAVE ADMIN ON *.* TO soon@'%'",
        "GRANT DELETE HISTORY ON granted.* TO same@'%'", "GRANT CREATE ROUTINE ON granted.* TO loner WITH GRANT OPTION", "CREATE USER disabled_pw@'%' IDENTIFIED VIA mysql_native_password USING 'invalid'",
    ]


def _mysql() -> list[str]:
    return [
        "CREATE USER sha@'%' IDENTIFIED WITH caching_sha2_password BY 'g\u00e9heim' PASSWORD HISTORY 5 PASSWORD REUSE INTERVAL 60 DAY PASSWORD REQUIRE CURRENT"
        " FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 2 COMMENT 'it''s \"x\"'",
        "CREATE USER sock@localhost IDENTIFIED WITH auth_socket AS 'someone'",
        "CREATE USER attributed@'%' IDENTIFIED BY 'x' PASSWORD REQUIRE CURRENT OPTIONAL PASSWORD HISTORY DEFAULT ATTRIBUTE '{\"team\": \"gr\u00f6\u00dfe\", \"n\": [1]}'",
        "CREATE USER unbounded@'%' IDENTIFIED BY 'x' FAILED_LOGIN_ATTEMPTS 5 PASSWORD_LOCK_TIME UNBOUNDED",
        "CREATE USER twofold@'%' IDENTIFIED BY 'first'", "ALTER USER twofold@'%' IDENTIFIED BY 'second' RETAIN CURRENT PASSWORD",
        "CREATE USER nologin@'%' ACCOUNT LOCK", "CREATE USER withrole@'%' IDENTIFIED BY 'x' DEFAULT ROLE writer, reader", "GRANT writer, reader TO withrole@'%'",
        "SET DEFAULT ROLE ALL TO withrole@'%'", "GRANT BACKUP_ADMIN, XA_RECOVER_ADMIN, CONNECTION_ADMIN ON *.* TO soon@'%' WITH GRANT OPTION",
        "GRANT SYSTEM_USER, ROLE_ADMIN ON *.* TO tls2@'%'", "SET GLOBAL partial_revokes = ON", "GRANT SELECT, INSERT ON *.* TO same@'%'", "REVOKE INSERT ON granted.* FROM same@'%'",
        "REVOKE SELECT ON mysql.* FROM same@'%'", "CREATE ROLE r2@'10.%'", "GRANT r2@'10.%' TO loner", "GRANT CREATE ROLE, DROP ROLE ON *.* TO loner",
        "SET GLOBAL mandatory_roles = 'reader'",
    ]
