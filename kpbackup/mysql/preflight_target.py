"""Whether a backup can be restored into a server: findings decided from facts alone.

Pure; what the set's own objects need is judged in `needs`, and whether the target is empty by the restore.
"""

from __future__ import annotations

from collections.abc import Mapping

from kpbackup.mysql.facts import ServerFacts, version_tuple
from kpbackup.mysql.findings import Finding, grant
from kpbackup.mysql.privileges import Privileges

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
SHADOW = RESTORE[: RESTORE.index("CREATE VIEW")]


def target_findings(
    facts: ServerFacts,
    privileges: Privileges,
    *,
    flavour: str,
    version: str,
    settings: Mapping[str, str],
    is_live: bool = False,
) -> list[Finding]:
    """Findings about a target; `flavour` and `version` are the source's from the manifest, `settings` its inventory's.

    `is_live`: it goes on serving, and gets tables and rows alone in a database of their own.
    """
    found = _kinship(facts, flavour, version)
    if any(one.severity == "error" for one in found):
        return found  # the rest would compare things that have nothing to do with each other
    found += _target_settings(facts, settings, is_live=is_live)
    found += _target_privileges(facts, privileges, is_live=is_live)
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


def _target_settings(facts: ServerFacts, settings: Mapping[str, str], *, is_live: bool) -> list[Finding]:
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
    if facts.event_scheduler == "ON" and not is_live:
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
    return found


def _target_privileges(facts: ServerFacts, privileges: Privileges, *, is_live: bool) -> list[Finding]:
    found = []
    missing = [name for name in (SHADOW if is_live else RESTORE) if not privileges.has(name)]
    if missing:
        found.append(
            Finding(
                "error",
                f"missing privilege {', '.join(missing)}",
                "objects and rows cannot be written",
                grant(facts, missing, privileges.account),
            )
        )
    if is_live:
        return found or [Finding("ok", f"{privileges.account} may write everything a shadow needs")]
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
