"""Every error kpbackup raises, and the exit code each one ends a command with.

    KpbackupError
    ├── UsageError                10  a command, option or value that makes no sense
    ├── SettingsError             11  unknown, missing or half-set setting
    ├── ServerUnreachable         12  cannot connect or log in to a database server
    ├── PrivilegeMissing          13  the account may not do what is needed
    ├── ServerUnfit               14  a server setting or version rules the work out (binlog off, STATEMENT format)
    ├── StorageError              15  the store refused, failed or is out of reach
    │   ├── ObjectMissing         15  an object that must be there is not
    │   ├── ObjectExists          15  put-if-absent met an object (the fence)
    │   ├── PreconditionFailed    15  a conditional write lost against another writer
    │   └── NotSupported          15  the store does not know the asked operation
    ├── RepositoryError           16  no repository here, a foreign one, or a format this version cannot read
    ├── IntegrityError            17  stored bytes are not what was written: flipped, cut, swapped, forged
    ├── KeyProblem                18  an identity, recipient or signing key is missing or wrong
    ├── LeaseHeld                 19  another process holds the role
    ├── ConfirmationNeeded        20  a restore without terminal and without --yes
    ├── ManualStepWaiting         21  a manual step waits for a person
    ├── UnreachableTarget         22  no gap-free plan reaches the asked point
    ├── TargetRefused             23  the target is not empty, too old, of another flavour
    ├── ChainBroken               24  the archive cannot be continued: purged, reset, forked
    ├── RestoreMismatch           25  what was read back differs from the backup
    ├── StepFailed                26  a step of a recovery failed (command driver, verification)
    ├── LocalIOError              27  the local disk is full or refuses
    ├── SnapshotError             28  no consistent point could be had, or a definition changed meanwhile
    ├── DoctorFailed              29  doctor found something that must be mended
    ├── DatabaseError             30  the server answered a statement with an error
    ├── NothingFound              31  a search of the archive met nothing
    ├── ClusterError              32  the Kubernetes cluster refused, failed or is out of reach
    └── InternalError             70  a defect of kpbackup

Codes 0 to 3 belong to `status` (ok, warning, critical, unknown); 130 and 143 mean
interrupted by Ctrl-C or SIGTERM. The message says what was attempted, on what and why
it failed; the hint says what to do next. Neither ever holds a secret.
"""

from __future__ import annotations

from typing import ClassVar


class KpbackupError(Exception):
    """The root: `except KpbackupError` is all a caller needs.

    `str(error)` is the message alone; `error.hint` (maybe empty) is what to do next.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(KpbackupError):
    exit_code = 10


class SettingsError(KpbackupError):
    exit_code = 11


class ServerUnreachable(KpbackupError):
    exit_code = 12


class PrivilegeMissing(KpbackupError):
    exit_code = 13


class ServerUnfit(KpbackupError):
    exit_code = 14


class StorageError(KpbackupError):
    exit_code = 15


class ObjectMissing(StorageError):
    pass


class ObjectExists(StorageError):
    pass


class PreconditionFailed(StorageError):
    pass


class NotSupported(StorageError):
    pass


class RepositoryError(KpbackupError):
    exit_code = 16


class IntegrityError(KpbackupError):
    exit_code = 17


class KeyProblem(KpbackupError):
    exit_code = 18


class LeaseHeld(KpbackupError):
    exit_code = 19


class ConfirmationNeeded(KpbackupError):
    exit_code = 20


class ManualStepWaiting(KpbackupError):
    exit_code = 21


class UnreachableTarget(KpbackupError):
    exit_code = 22


class TargetRefused(KpbackupError):
    exit_code = 23


class ChainBroken(KpbackupError):
    exit_code = 24


class RestoreMismatch(KpbackupError):
    exit_code = 25


class StepFailed(KpbackupError):
    exit_code = 26


class LocalIOError(KpbackupError):
    exit_code = 27


class SnapshotError(KpbackupError):
    exit_code = 28


class DoctorFailed(KpbackupError):
    exit_code = 29


class DatabaseError(KpbackupError):
    """`number` is the server's error number, 0 when the client library made it."""

    exit_code = 30

    def __init__(self, message: str, *, hint: str = "", number: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.number = number


class NothingFound(KpbackupError):
    exit_code = 31


class ClusterError(KpbackupError):
    exit_code = 32


class InternalError(KpbackupError):
    exit_code = 70
