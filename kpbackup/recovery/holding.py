"""The target held read-only from the end of step 2 until step 5: nobody writes to it before users are meant to.

MySQL: `super_read_only`, which holds for everybody. MariaDB: `read_only`; accounts with READ_ONLY ADMIN (or SUPER) may still
write there. What a crash leaves: the target as it was held; the journal says so, and the run that goes on lets it go.
"""

from __future__ import annotations

from kpbackup import errors
from kpbackup.mysql import server
from kpbackup.mysql.facts import ServerFacts, read_facts
from kpbackup.mysql.privileges import Privileges
from kpbackup.recovery.journal import Journal
from kpbackup.recovery.steps import RecoveryRequest

HELD, RELEASED = "held_read_only", "released_read_only"


def check_privileges(facts: ServerFacts, rights: Privileges) -> None:
    """Raises PrivilegeMissing: the account may not hold its server read-only."""
    enough = ("SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN") if facts.mariadb else ("SUPER", "SYSTEM_VARIABLES_ADMIN")
    if not rights.has_any(*enough):
        wanted = "READ_ONLY ADMIN" if facts.mariadb else "SYSTEM_VARIABLES_ADMIN, CONNECTION_ADMIN"
        raise errors.PrivilegeMissing(
            f"recovery.read_only is set, and {rights.account} may not hold the target read-only",
            hint=f"GRANT {wanted} ON *.* TO {rights.account}; or leave recovery.read_only off",
        )


def is_held(journal: Journal) -> bool:
    """Whether this run holds its target."""
    held, released = journal.last(HELD), journal.last(RELEASED)
    return held is not None and (released is None or released.record.head.seq < held.record.head.seq)


def hold(request: RecoveryRequest, journal: Journal) -> None:
    """Repeatable. The entry comes first: what is held without one would be held for ever."""
    if not is_held(journal):
        journal.write(HELD)
    with server.connect(request.endpoint) as connection:
        name = "read_only" if read_facts(connection).mariadb else "super_read_only"
        connection.execute(f"SET GLOBAL {name} = ON")


def release(request: RecoveryRequest, journal: Journal) -> None:
    """Repeatable; does nothing where this run holds nothing."""
    if not is_held(journal):
        return
    with server.connect(request.endpoint) as connection:
        if not read_facts(connection).mariadb:
            connection.execute("SET GLOBAL super_read_only = OFF")
        connection.execute("SET GLOBAL read_only = OFF")
    journal.write(RELEASED)
