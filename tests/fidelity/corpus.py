"""SQL out of MariaDB's and MySQL's own regression scripts: thousands of tables and programs that nobody thought of when writing a backup.

A script of `mysqltest` mixes SQL with commands of its own. Statements are taken in their order with the delimiter in force;
commands are dropped but for `let`, `eval`, `delimiter` and `source`, without which much SQL would not be SQL; blocks are run once.
Left out: what drops, what concerns the whole server (settings, replication, accounts, plugins, shutdown), and what waits.
Everything is bytes read as latin1, so that no script's character set matters here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fidelity.scenes import MARIADB_10, MYSQL_9, Kind
from tests.servers import mysql97, plugins

_MARIADB_SUITES = (
    "main", "suite/innodb/t", "suite/parts/t", "suite/funcs_1/t", "suite/engines/funcs/t", "suite/compat/oracle/t", "suite/maria",
    "suite/vcol/t", "suite/gcol/t", "suite/innodb_fts/t", "suite/innodb_gis/t", "suite/versioning/t", "suite/period/t",
    "suite/sql_sequence", "suite/innodb_zip/t", "suite/json/t", "suite/archive", "suite/csv", "suite/heap", "suite/jp/t", "suite/roles",
    "plugin/type_inet/type_inet", "plugin/type_uuid/type_uuid",
)
_MYSQL_SUITES = (
    "t", "suite/innodb/t", "suite/parts/t", "suite/funcs_1/t", "suite/engines/funcs/t", "suite/gcol/t", "suite/gis/t",
    "suite/innodb_fts/t", "suite/innodb_gis/t", "suite/innodb_zip/t", "suite/json/t", "suite/collations/t", "suite/jp/t",
    "suite/opt_trace/t", "suite/engines/iuds/t",
)
_DEPTH = 4  # of scripts that take in scripts
_LONGEST = 400_000  # characters of a statement
_COMMANDS = frozenset("""
    append_file assert cat_file change_user character_set chmod connect connection copy_file copy_files_wildcard dec dirty_close
    diff_files disable_abort_on_error disable_connect_log disable_cursor_protocol disable_info disable_metadata disable_parsing
    disable_ps2_protocol disable_ps_protocol disable_query_log disable_reconnect disable_result_log disable_rpl_parse
    disable_session_track_info disable_view_protocol disable_warnings disconnect die echo enable_abort_on_error
    enable_connect_log enable_cursor_protocol enable_info enable_metadata enable_parsing enable_ps2_protocol enable_ps_protocol
    enable_query_log enable_reconnect enable_result_log enable_rpl_parse enable_session_track_info enable_view_protocol
    enable_warnings end end_timer enable_non_blocking_api disable_non_blocking_api error evalp exec exec_in_background exit
    file_exists force-cpdir force-rmdir horizontal_results if inc lets list_files list_files_append_file list_files_write_file
    lowercase_result mkdir move_file optimizer_trace output perl ping query query_attributes query_get_value query_horizontal
    query_vertical real_sleep reap remove_file remove_files_wildcard replace_column replace_numeric_round replace_regex
    replace_result require reset_connection result result_format rmdir save_master_pos send send_eval send_quit send_shutdown
    shutdown_server skip sleep sorted_result start_timer sync_slave_with_master sync_with_master system timer_start timer_end
    vertical_results wait_for_slave_to_stop while write_file write_line ps_protocol sync_slave enable_service_connection
    disable_service_connection enable_prepare_warnings disable_prepare_warnings
""".split())
_UNFIT = re.compile(
    r"\s*(?:"
    r"RESTART|CLONE|ALTER\s+INSTANCE|IMPORT\b|SET\s+(?:PERSIST|@@PERSIST|RESOURCE)|(?:CREATE|ALTER)\s+(?:RESOURCE|LOGFILE)"
    r"|DROP\b(?!\s+(?:PREPARE|TEMPORARY))|SHUTDOWN|KILL|RESET|PURGE|CHANGE\s+MASTER|START\s+(?:SLAVE|ALL|REPLICA)|STOP\s+(?:SLAVE|ALL|REPLICA)|XA\b|LOCK\s|UNLOCK|BACKUP\b"
    r"|FLUSH|INSTALL|UNINSTALL|HANDLER|LOAD\s|DO\s+(?:SLEEP|GET_LOCK|RELEASE)|SELECT\s+(?:SLEEP|GET_LOCK|BENCHMARK|MASTER_)|SET\s+PASSWORD"
    r"|SET\s+(?:STATEMENT\s)?.*(?:GLOBAL|SQL_LOG_BIN|GTID|MAX_STATEMENT_TIME|TIMESTAMP)|CREATE\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE|SERVER)|ALTER\s+USER|RENAME\s+USER|GRANT\b|REVOKE\b"
    r"|CACHE\s+INDEX|REPAIR|BINLOG\b|SHOW\b|EXPLAIN\b|ANALYZE\s+(?!TABLE)|DESC|HELP|CHECK\s|CHECKSUM|OPTIMIZE"
    r"|PREPARE\b.*\bSET\s+PASSWORD|CALL\b|SELECT\b|\(\s*SELECT|WITH\b|VALUES\b|TABLE\b|EXECUTE\b.*GLOBAL"
    r"|USE\s+`?(?:mysql|information_schema|performance_schema|sys|test)\b|ALTER\s+DATABASE\s+`?(?:mysql|test)|ALTER\s+TABLE\s+\S+\s+(?:DISCARD|IMPORT)"
    r")",
    re.IGNORECASE,
)
# the server's own tables are not the scripts' to write; a rename of a database's folder or a select into a file neither
_SYSTEM = re.compile(r"\b(?:mysql|performance_schema)\s*\.\s*[`\w]|\bINTO\s+(?:OUT|DUMP)FILE|\bDATA\s+DIRECTORY|\bINDEX\s+DIRECTORY|ENGINE\s*=\s*(?:S3|FEDERATED|CONNECT)", re.IGNORECASE)
_WORD = re.compile(r"\s*([A-Za-z_-]+)")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_LET = re.compile(r"\s*\$?([A-Za-z_]\w*)\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Corpus:
    """Whose scripts, the server they are played on, and the program that is asked for the same. `home` is the folder mysql-test."""

    name: str
    kind: Kind
    dump: str
    suites: tuple[str, ...]
    home: Callable[[], Path]
    version: Callable[[], str]


CORPORA = {
    one.name: one for one in (
        Corpus(
            "mariadb", MARIADB_10, "mariadb-dump", _MARIADB_SUITES,
            lambda: plugins.package("mariadb-test-data") / "usr/share/mysql/mysql-test", lambda: f"MariaDB {plugins.version()}",
        ),
        Corpus("mysql", MYSQL_9, "mysqldump", _MYSQL_SUITES, lambda: mysql97.scripts() / "usr/lib/mysql-test", mysql97.version),
    )
}


def scripts(of: Corpus, home: Path) -> Iterator[Path]:
    """The scripts of the suites, in order."""
    for suite in of.suites:
        yield from sorted((home / suite).glob("*.test"))


def statements(script: Path, home: Path) -> list[str]:
    """The SQL of a script, as latin1 text."""
    reader = _Reader(home)
    reader.read(script, depth=0)
    return [one for one in reader.found if len(one) < _LONGEST and not _UNFIT.match(_plain(one)) and not _SYSTEM.search(one)]


def _plain(statement: str) -> str:
    """The statement without the comments it begins with."""
    text = statement.lstrip()
    while text.startswith(("/*", "#", "--")):
        if text.startswith("/*!"):
            return re.sub(r"^/\*!\d*", "", text)
        end = text.find("*/") + 2 if text.startswith("/*") else text.find("\n") + 1
        if end < 2:
            return ""
        text = text[end:].lstrip()
    return text


class _Reader:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.found: list[str] = []
        self.delimiter = ";"
        self.variables: dict[str, str] = {}

    def read(self, script: Path, *, depth: int) -> None:
        text = script.read_bytes().decode("latin1")
        position = 0
        while position < len(text):
            piece, position = self._next(text, position)
            position = self._take(piece, text, position, script, depth)

    def _next(self, text: str, position: int) -> tuple[str, int]:
        """(a command line or a statement without its delimiter, where the rest begins)."""
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        rest = text[position : position + 2]
        if rest[:1] in ("#", "}", "{") or rest == "--":
            end = text.find("\n", position)
            end = len(text) if end < 0 else end
            return (text[position:end] if rest == "--" else ""), end + 1
        word = _WORD.match(text, position)
        if word and word[1].lower() in ("if", "while"):  # its block is run once: skip the condition up to the brace
            brace = text.find("{", position)
            line = text.find("\n", position)
            return "", (brace if brace >= 0 else line if line >= 0 else len(text)) + 1
        return self._statement(text, position)

    def _statement(self, text: str, position: int) -> tuple[str, int]:
        begin, quote = position, ""
        while position < len(text):
            letter = text[position]
            if quote:
                if letter == "\\" and quote != "`":
                    position += 1
                elif letter == quote:
                    quote = ""
            elif text.startswith(self.delimiter, position):
                return text[begin:position], position + len(self.delimiter)
            elif letter in "'\"`":
                quote = letter
            elif letter == "#" or text.startswith("-- ", position):
                end = text.find("\n", position)
                position = len(text) if end < 0 else end
            elif text.startswith("/*", position) and not text.startswith("/*!", position):
                end = text.find("*/", position)
                position = len(text) if end < 0 else end + 1
            position += 1
        return text[begin:], position

    def _take(self, piece: str, text: str, position: int, script: Path, depth: int) -> int:
        """Does what the piece says; where to go on."""
        is_line = piece.startswith("--")
        command = piece[2:].strip() if is_line else piece.strip()
        word = _WORD.match(command)
        name = word[1].lower() if word else ""
        rest = command[word.end() :].strip() if word else ""
        if name == "delimiter":
            self.delimiter = rest.removesuffix(self.delimiter).strip() or rest
        elif name == "let":
            found = _LET.match(rest)
            if found and not found[2].startswith("`"):
                self.variables[found[1]] = self._filled(found[2])
        elif name in ("eval", "evalp"):
            self._keep(self._filled(rest))
        elif name == "source":
            self._source(self._filled(rest), script, depth)
        elif name in ("perl", "write_file", "append_file"):
            end = text.find("\nEOF", position)
            return position if end < 0 else end + 5
        elif name == "exit" and depth == 0:
            return len(text)
        elif not is_line and name not in _COMMANDS and command:
            self._keep(command)
        return position

    def _keep(self, statement: str) -> None:
        if "$" not in statement or "`" in statement or "'" in statement:
            self.found.append(statement)

    def _filled(self, text: str) -> str:
        return _VARIABLE.sub(lambda one: self.variables.get(one[1], ""), text)

    def _source(self, name: str, script: Path, depth: int) -> None:
        wanted = name.strip().rstrip(";")
        for folder in (self.home, script.parent, script.parent.parent):
            path = folder / wanted
            if depth < _DEPTH and path.is_file():
                self.read(path, depth=depth + 1)
                return
