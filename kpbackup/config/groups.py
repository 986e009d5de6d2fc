"""Every setting, one class per group: the docstring under a key says its meaning, unit and why the default is what it is.

docs/settings.md is generated from these classes, so what is written here is what users read.
Values are checked when they are read; a group that is half set is an error, never a guess.
Passwords are `SecretStr`, so that no repr, log or message shows one.
"""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Literal, Self

import pydantic

from kpbackup.config import values

MIB = 1 << 20
DEFAULT_MYSQL_PORT = 3306
LEAST_CONNECTIONS = 3


class Group(pydantic.BaseModel):
    """What all groups share: frozen, unknown keys refused, no value in an error text."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class TlsSettings(Group):
    """Encryption of the connection to a database server."""

    required: bool = False
    """Refuse a connection without TLS, and verify the server (`verify`). Off by default because many servers inside one network
    offer none; without it TLS is used when the server offers it, but the server's certificate is not verified."""

    ca_file: values.Path | None = None
    """PEM file of the authority that signed the server's certificate. Set, it makes TLS required. Without it, and with
    `required`, the authorities this machine trusts decide."""

    verify: Literal["identity", "ca", "none"] = "identity"
    """What of the server is verified when TLS is asked for: `identity`, its certificate and that it names the host; `ca`, the
    certificate alone; `none`. `identity`, because a certificate for another host may be anybody's."""

    certificate_file: values.Path | None = None
    """PEM file of the certificate this client shows, for accounts that REQUIRE X509. Set, it makes TLS required."""

    key_file: values.Path | None = None
    """PEM file of the private key of `certificate_file`."""

    @pydantic.model_validator(mode="after")
    def _key_and_certificate(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class Login(Group):
    """A database server and the account that logs in."""

    host: values.Host
    """Host name or address of the server. No default: a guess would back up, or overwrite, the wrong server."""

    port: values.Port = DEFAULT_MYSQL_PORT
    """TCP port. The default is the one MySQL and MariaDB listen on."""

    user: values.Text
    """Account that logs in. `kpbackup doctor` prints the grants it needs."""

    password_file: values.Path | None = None
    """File that holds the password; one trailing newline is dropped. Keep it readable for its owner alone."""

    password: pydantic.SecretStr | None = None
    """The password itself, from the environment alone: in the YAML file and on the command line it is refused, because
    files get committed and command lines are seen by every user of the machine. Without either, the login uses none."""

    tls: TlsSettings = TlsSettings()

    @pydantic.model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both set; keep one")
        return self


class SourceSettings(Login):
    """The server that is backed up. A machine that only restores leaves the whole group out."""

    name: values.Text = ""
    """Label `source` of every metric. Empty means host:port; name it when the host may change after a failover."""

    databases: tuple[values.Text, ...] = ()
    """Databases to back up. Empty means all but the system's own, so that a database made tomorrow is not forgotten."""

    only: tuple[values.Text, ...] = ()
    """What of those databases is backed up: a list of `database` or `database.table`, with * and ?. Empty means everything. A
    repository is of everything or of a part, never both; of a part nothing is promised for the rest."""

    exclude: tuple[values.Text, ...] = ()
    """What is not backed up, written like `only`. Empty by default: what is forgotten here is not lost."""

    max_connections: values.Whole = pydantic.Field(default=6, le=64)
    """Most connections that backups hold on the source at the same time, a full backup and the archiving beside it together,
    in one process or in several: one coordinates the full backup, one archives the binlog (and probes the source in between),
    all others read rows. At least 3. With archive.continuous one more is held open for the binlog, so that probes have their
    own: then at least 4. Six leave four readers (three), which keep two to four cores busy and leave the server room for its
    application. `doctor`, `backup application` and an exporter of its own come on top, with one connection for a moment."""

    bandwidth_limit: values.Rate | None = None
    """Most bytes of rows per second that a full backup reads, all its connections together, such as 20MiB; what an idle
    one leaves over the others use. Unlimited by default: the shorter the backup, the shorter its snapshot is held open.
    Archiving the binlog is not limited: it must keep up with the source."""

    @pydantic.field_validator("only", "exclude")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            database, dot, table = pattern.partition(".")
            if not database or (dot and not table):
                raise ValueError(f"{pattern!r} names no database or table: write database or database.table, with * and ?")
        return value

    @pydantic.field_validator("max_connections")
    @classmethod
    def _enough_connections(cls, value: int) -> int:
        if value < LEAST_CONNECTIONS:
            raise ValueError(
                f"must be at least {LEAST_CONNECTIONS}: one coordinates a full backup, one reads rows, one archives the binlog"
                " beside them"
            )
        return value

    @property
    def label(self) -> str:
        """The name, else host:port."""
        return self.name or f"{self.host}:{self.port}"


class EncryptionSettings(Group):
    """Who can open backups. Everything is sealed to all recipients; there is no way to store plain data."""

    recipients: tuple[values.Recipient, ...] = ()
    """Public halves of age identities, `age1...`. Give two, kept in two places: with the only identity lost, the backups
    are lost too."""

    recipients_file: values.Path | None = None
    """File with one recipient per line, `#` starts a comment. Added to `recipients`."""

    identity_file: values.Path | None = None
    """File of the private age identity. Restoring needs it, making backups does not: keep it away from the machine that
    makes them. It may be sealed with a passphrase (`age -p`)."""

    passphrase_file: values.Path | None = None
    """File that holds the passphrase of a sealed identity: of `identity_file`, or, without one, of the one that `kpbackup init`
    stored in the repository when this was set and no recipient. Restoring needs it, making backups does not."""

    @property
    def opens(self) -> bool:
        """Whether this machine has what opens backups."""
        return self.identity_file is not None or self.passphrase_file is not None


class RetiredKey(Group):
    """A signing key that is believed up to a head and no further."""

    public_key: values.PublicKey
    """The retired public key, `RW...`. It need not be among `public_keys` any more."""

    head_file: values.Path
    """Head file (`repository.head_file`, or of `kpbackup check --write-head`) from before it was retired or stolen: what is
    numbered behind it and signed by this key is refused."""


class SigningSettings(Group):
    """Who may write backups, and whose backups are believed."""

    key_file: values.Path | None = None
    """File of the minisign secret key that signs what is written. Only a machine that makes backups has it."""

    key_password_file: values.Path | None = None
    """File that holds the password of `key_file`, if it has one."""

    public_keys: tuple[values.PublicKey, ...] = ()
    """minisign public keys, `RW...`, whose signatures are believed. Reading a repository without any is refused, so that
    a forged one is not restored."""

    public_keys_file: values.Path | None = None
    """File with one public key per line, `#` or `untrusted comment:` starts a comment. Added to `public_keys`."""

    retired: tuple[RetiredKey, ...] = ()
    """Keys that were rotated away or stolen: a list of {public_key, head_file}. A stolen key can forge what comes, not what
    was: everything up to the head stays restorable."""

    @pydantic.model_validator(mode="after")
    def _password_needs_key(self) -> Self:
        if self.key_password_file and not self.key_file:
            raise ValueError("key_password_file is set without key_file")
        return self


class ScheduleSettings(Group):
    """When the daemon starts jobs; the times are in `timezone`. A job missed while it was down runs once at its start."""

    full: values.Cron | None = "0 2 * * *"
    """Cron expression of full backups; null switches them off. Every night at two, when applications are quiet."""

    incremental: values.Cron | None = "0 * * * *"
    """Cron expression of incremental backups; null switches them off. Every hour, which meets the RPO of one hour."""

    copies: values.Cron | None = "15 * * * *"
    """Cron expression of copying to `copies`, where there are some; null switches it off. A quarter past every hour, when the
    hour's incremental backup has ended."""

    canary: values.Cron | None = None
    """Cron expression of new canaries, one small object per recipient, which `kpbackup keys canary --check` opens where the
    identity is. Off by default, as nothing is proven before somebody opens them; `0 3 * * 1` makes them every Monday."""


class ArchiveSettings(Group):
    """How the binlog is archived."""

    continuous: bool = False
    """Follow the binlog all the time instead of catching up on schedule. Lowers the RPO to about `interval`, for one
    replication connection held open."""

    interval: values.Duration = pydantic.Field(default=timedelta(seconds=3), ge=timedelta(seconds=1), le=timedelta(hours=1))
    """Longest time a transaction waits for its segment in continuous mode. Three seconds make at most 28,800 small objects
    a day, on a source that never rests; compaction joins them."""

    observe_interval: values.Duration = pydantic.Field(
        default=timedelta(minutes=1), ge=timedelta(seconds=1), le=timedelta(hours=1)
    )
    """How often the source is asked where it stands in continuous mode: by so much the recovery point of an idle source may be
    old. A minute costs at most 1,440 small objects a day, and none while the source writes. Keep it below half of
    objectives.rpo."""

    segment_bytes: values.Size = pydantic.Field(default=16 * MIB, ge=64 << 10, le=1 << 30)
    """Binlog bytes after which a segment is closed at the next transaction boundary. 16MiB keep memory flat and
    uploads quick to repeat."""

    spool_bytes: values.Size = pydantic.Field(default=256 * MIB, ge=16 * MIB, le=1 << 40)
    """Most sealed bytes that wait on local disk (in TMPDIR) while the store is away or slow; then the source is no longer read.
    256MiB fit where little disk is given; what does not fit is still on the source, until it purges it. One transaction is
    never cut: a larger one is let through alone."""


class ObjectiveSettings(Group):
    """What was promised; `status` and the metrics compare it with what is achieved."""

    rpo: values.Duration = pydantic.Field(default=timedelta(hours=1), gt=timedelta())
    """Largest loss that is acceptable: age of the newest recovery point. The default matches the hourly schedule."""

    rto: values.Duration = pydantic.Field(default=timedelta(minutes=30), gt=timedelta())
    """Longest recovery that is acceptable, from its start to a verified database."""

    canary: values.Duration = pydantic.Field(default=timedelta(days=40), gt=timedelta())
    """Longest time since a key last proved that it opens its canary; `status` warns after it, once there are canaries. Forty
    days leave room for a person who does it every month."""

    check: values.Duration = pydantic.Field(default=timedelta(days=3), gt=timedelta())
    """Longest time since a `check` last found nothing wrong; `status` and an alert warn after it, and when more than seven sets
    are stored and none was ever checked. Three days let a daily check fail twice."""

    drill: values.Duration = pydantic.Field(default=timedelta(days=35), gt=timedelta())
    """Longest time since a drill last passed; `status` and an alert warn after it, once there are drills. Thirty-five days let
    a monthly drill be some days late."""


class RetentionSettings(Group):
    """What `prune` keeps, always together with everything that needs."""

    days: values.Whole = pydantic.Field(default=30, ge=1, le=36_500)
    """Days back to which every moment stays restorable. A month lets a mistake found at month's end be undone."""

    complete_chains: values.Whole = pydantic.Field(default=2, ge=1, le=1000)
    """Complete chains kept whatever their age, so that a stopped schedule never ends in an empty repository."""

    weekly: values.Whole = pydantic.Field(default=0, le=10_000)
    """Of so many of the newest weeks that have a set, the first set of each, restorable to its own moment. Weeks begin on
    Monday, in `timezone`. None by default: what is kept longer than `days` is for you to say."""

    monthly: values.Whole = pydantic.Field(default=0, le=10_000)
    """The same by months. None by default."""

    yearly: values.Whole = pydantic.Field(default=0, le=1000)
    """The same by years. None by default."""

    grace_period: values.Duration = timedelta(days=1)
    """Wait between dropping a manifest and deleting its data, so that a restore already running can finish."""


class LogSettings(Group):
    """What is written to standard error."""

    format: Literal["text", "json"] = "text"
    """`text` for people, `json` for collectors: one object per line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written. `debug` also shows where in the code an unexpected error arose."""

    progress_interval: values.Duration = pydantic.Field(
        default=timedelta(seconds=30), ge=timedelta(seconds=1), le=timedelta(hours=1)
    )
    """How often a long work writes how far it is (`progress_reported`), where there is no terminal to draw a bar on. Two lines a
    minute show life without filling a log."""


    @property
    def progress_interval_s(self) -> float:
        return self.progress_interval.total_seconds()


def _this_host() -> str:
    return socket.gethostname()


class RequiredFile(Group):
    """A file that something else provides, such as a mounted Secret."""

    path: values.Path
    """The file. It must be there and not empty."""

    origin: values.Text = pydantic.Field(min_length=1)
    """What provides it, in the words of whoever reads the log, such as `Secret kpbackup-source, key password`."""


class ServiceTlsSettings(Group):
    """TLS of our own port; both files, or neither."""

    certificate_file: values.Path | None = None
    """PEM file of the certificate, with those of its authorities behind it. Read again when it changes."""

    key_file: values.Path | None = None
    """PEM file of its private key."""

    @pydantic.model_validator(mode="after")
    def _key_and_certificate(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        return self


class ServiceAuthSettings(Group):
    """Who may read /metrics and the page: everybody, unless one of these is set. Health stays open, for probes."""

    user: values.Text = ""
    """User name of basic authentication."""

    password_file: values.Path | None = None
    """File that holds its password."""

    token_file: values.Path | None = None
    """File that holds a bearer token; one of both ways is enough for a client."""

    @pydantic.model_validator(mode="after")
    def _user_and_password(self) -> Self:
        if bool(self.user) != (self.password_file is not None):
            raise ValueError("user and password_file go together")
        return self


class ServiceSettings(Group):
    """What the daemon and the exporter listen on, and what they wait for."""

    listen: values.Listen = "0.0.0.0:8080"
    """Address and port of /metrics and /api/health. All addresses, because probes and Prometheus come from other hosts;
    nothing secret is served."""

    instance: values.Text = pydantic.Field(default_factory=_this_host, min_length=1, max_length=200)
    """Name of this process in leases. A restarted process with the same name takes its lease back at once. Default: the
    host name."""

    tls: ServiceTlsSettings = ServiceTlsSettings()

    auth: ServiceAuthSettings = ServiceAuthSettings()

    required_files: tuple[RequiredFile, ...] = ()
    """Files that must be there before work begins: a list of {path, origin}. The daemon and the exporter wait for them and
    name a missing one in the log and in /api/health/ready; every other command refuses. Empty by default: each command
    then names a missing file when it needs it."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to bind."""
        return values.split_listen(self.listen)
