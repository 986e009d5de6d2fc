"""All settings of one process as one frozen value, and what a command asks of them.

A group that a command does not need may be missing: a machine that restores has no `source`. The
`need_...` methods give the group, or say which key is missing.
"""

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Self

import pydantic

from kpbackup import errors
from kpbackup.config import groups, secrets, stores, values
from kpbackup.config.application import ApplicationSettings
from kpbackup.config.drill import DrillSettings
from kpbackup.config.forecast import ForecastSettings
from kpbackup.config.notify import NotifySettings, secret_files
from kpbackup.config.recovery import RecoverySettings, TargetSettings  # the field `recovery` hides the module

LEAST_CONTINUOUS = groups.LEAST_CONNECTIONS + 1  # the stream of the continuous archive is open while the source is looked at


class Settings(groups.Group):
    """The top level."""

    timezone: values.ZoneName = "UTC"
    """IANA time zone of schedules and of `--to` times written without one. UTC, because it has no clock changes."""

    source: groups.SourceSettings | None = None

    repository: stores.RepositorySettings | None = None

    encryption: groups.EncryptionSettings = groups.EncryptionSettings()

    signing: groups.SigningSettings = groups.SigningSettings()

    schedule: groups.ScheduleSettings = groups.ScheduleSettings()

    archive: groups.ArchiveSettings = groups.ArchiveSettings()

    objectives: groups.ObjectiveSettings = groups.ObjectiveSettings()

    retention: groups.RetentionSettings = groups.RetentionSettings()

    application: ApplicationSettings | None = None

    recovery: RecoverySettings = RecoverySettings()

    service: groups.ServiceSettings = pydantic.Field(default_factory=groups.ServiceSettings)

    log: groups.LogSettings = groups.LogSettings()

    drill: DrillSettings = DrillSettings()

    notify: NotifySettings = NotifySettings()

    forecast: ForecastSettings = ForecastSettings()

    copies: tuple[stores.CopySettings, ...] = ()
    """Second copies of the repository, on other stores: a list of {name, url, endpoint_url, region, profile, ca_file, max_age,
    grace_period}. `kpbackup copy` and the daemon keep them up to date."""

    _copy: str = pydantic.PrivateAttr(default="")

    @pydantic.field_validator("copies", mode="after")
    @classmethod
    def _copies_differ(
        cls, value: tuple[stores.CopySettings, ...], info: pydantic.ValidationInfo
    ) -> tuple[stores.CopySettings, ...]:
        if len({one.name for one in value}) != len(value):
            raise ValueError("two copies have the same name")
        places: list[stores.StoreSettings] = [*value, *([own] if (own := info.data.get("repository")) else [])]
        if len({(one.url, one.endpoint_url) for one in places}) != len(places):
            raise ValueError("a copy lies where the repository or another copy lies; give each a store of its own")
        return value

    @pydantic.model_validator(mode="after")
    def _enough_connections(self) -> Self:
        if self.source is not None and self.row_connections < 1:
            raise ValueError(
                f"source.max_connections: must be at least {LEAST_CONTINUOUS} with archive.continuous: one coordinates a full"
                " backup, one reads rows, one follows the binlog, one looks where the source stands"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _drilled_application_is_verified(self) -> Self:
        if self.drill.application is not None and not self.recovery.verify.profile:
            raise ValueError("drill.application is set without recovery.verify.profile, which says how the application is asked")
        return self

    @property
    def row_connections(self) -> int:
        """How many connections of a full backup read rows: all but its coordinator's and those of the archiver and the probe."""
        others = LEAST_CONTINUOUS if self.archive.continuous else groups.LEAST_CONNECTIONS
        return self.need_source().max_connections - others + 1

    @property
    def copy_name(self) -> str:
        """The copy these settings look at instead of the repository itself; "" when at none."""
        return self._copy

    def need_copy(self, name: str) -> stores.CopySettings:
        """The copy of this name.

        Raises:
            SettingsError: there is none.
        """
        for one in self.copies:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.copies)
        raise errors.SettingsError(
            f"no copy is called {name!r}", hint=f"copies in the settings: {known}" if known else "the settings name no copies"
        )

    def of_copy(self, name: str) -> Settings:
        """These settings with a copy in the place of the repository: to read it, restore from it and prune it.

        Raises:
            SettingsError: there is no such copy.
        """
        found = self.need_copy(name)
        store = {field: getattr(found, field) for field in stores.StoreSettings.model_fields}
        retention = self.retention.model_copy(update={"grace_period": found.grace_period})
        changed = self.model_copy(update={"repository": stores.RepositorySettings(**store), "retention": retention})
        changed._copy = name
        return changed

    @property
    def zone(self) -> tzinfo:
        """The time zone."""
        return values.zone_of(self.timezone)

    def need_source(self) -> groups.SourceSettings:
        """The source.

        Raises:
            SettingsError: none is set.
        """
        if self.source is None:
            raise _missing("source.host", "name the server to back up, its host and user")
        return self.source

    def need_target(self) -> TargetSettings:
        """The server to restore into.

        Raises:
            SettingsError: none is set.
        """
        if self.recovery.target is None:
            raise _missing("recovery.target.host", "name the server to restore into, its host and user")
        return self.recovery.target

    def need_repository(self) -> stores.RepositorySettings:
        """The repository.

        Raises:
            SettingsError: none is set.
        """
        if self.repository is None:
            raise _missing("repository.url", "write s3://bucket/prefix or file:///absolute/path")
        return self.repository

    def source_password(self) -> pydantic.SecretStr:
        """The source account's password, the empty one when none is set.

        Raises:
            SettingsError: no source, or its password_file cannot be read.
        """
        source = self.need_source()
        return secrets.password(source.password, source.password_file, key="source.password_file")

    def target_password(self) -> pydantic.SecretStr:
        """The target account's password, the empty one when none is set.

        Raises:
            SettingsError: no target, or its password_file cannot be read.
        """
        target = self.need_target()
        return secrets.password(target.password, target.password_file, key="recovery.target.password_file")

    def verification_password(self) -> pydantic.SecretStr:
        """The password of the application's account for verification, the empty one when none is set.

        Raises:
            SettingsError: its password_file cannot be read.
        """
        verify = self.recovery.verify
        return secrets.password(verify.password, verify.password_file, key="recovery.verify.password_file")

    def need_recipients(self) -> tuple[str, ...]:
        """Everyone backups are sealed to, at least one, each once.

        Raises:
            SettingsError: none is set.
            KeyProblem: recipients_file cannot be read or holds something else.
        """
        hint = "`kpbackup init` makes an identity and prints its recipient"
        return self._keys("encryption", "recipients", check=values.recipient, hint=hint)

    def need_public_keys(self) -> tuple[str, ...]:
        """Every public key whose signature is believed, at least one, each once.

        Raises:
            SettingsError: none is set.
            KeyProblem: public_keys_file cannot be read or holds something else.
        """
        hint = "`kpbackup init` prints the public key of the repository"
        return self._keys("signing", "public_keys", check=values.public_key, hint=hint)

    def need_identity(self) -> pydantic.SecretBytes | None:
        """The content of the private identity's file, None when only a passphrase is set.

        Raises:
            SettingsError: neither identity_file nor passphrase_file is set.
            KeyProblem: the file cannot be read.
        """
        if self.encryption.identity_file is not None:
            return secrets.key_bytes(self.encryption.identity_file, key="encryption.identity_file")
        if self.encryption.passphrase_file is None:
            raise _missing("encryption.identity_file", "name the file of the private identity that `kpbackup init` made")
        return None

    def need_passphrase(self) -> pydantic.SecretStr:
        """The passphrase of a sealed identity.

        Raises:
            SettingsError: passphrase_file is not set, cannot be read, or is empty.
        """
        path = self.encryption.passphrase_file
        if path is None:
            raise _missing("encryption.passphrase_file", "the identity is sealed: name the file of its passphrase")
        found = secrets.password(None, path, key="encryption.passphrase_file")
        if not found.get_secret_value():
            raise errors.SettingsError(f"encryption.passphrase_file: {path} is empty", hint="write the passphrase into it")
        return found

    def need_signing_key(self) -> tuple[pydantic.SecretStr, pydantic.SecretStr | None]:
        """The text of the secret signing key's file, and its password if one is set.

        Raises:
            SettingsError: key_file is not set, or key_password_file cannot be read.
            KeyProblem: key_file cannot be read.
        """
        signing = self.signing
        if signing.key_file is None:
            raise _missing("signing.key_file", "name the file of the signing key that `kpbackup init` made")
        text = secrets.key_text(signing.key_file, key="signing.key_file")
        if signing.key_password_file is None:
            return text, None
        return text, secrets.password(None, signing.key_password_file, key="signing.key_password_file")

    def exposed_files(self) -> tuple[tuple[str, str], ...]:
        """(key, path) of each secret file that every user of the machine may read: worth a warning."""
        target = self.recovery.target
        files = {
            "source.password_file": self.source.password_file if self.source else None,
            "recovery.target.password_file": target.password_file if target else None,
            "recovery.verify.password_file": self.recovery.verify.password_file,
            "recovery.deploy.values_file": self.recovery.deploy.values_file,
            "source.tls.key_file": self.source.tls.key_file if self.source else None,
            "recovery.target.tls.key_file": target.tls.key_file if target else None,
            "service.tls.key_file": self.service.tls.key_file,
            "service.auth.password_file": self.service.auth.password_file,
            "service.auth.token_file": self.service.auth.token_file,
            "encryption.identity_file": self.encryption.identity_file,
            "encryption.passphrase_file": self.encryption.passphrase_file,
            "signing.key_file": self.signing.key_file,
            "signing.key_password_file": self.signing.key_password_file,
            **secret_files(self.notify),
        }
        return tuple((key, path) for key, path in files.items() if path and secrets.exposed(path))

    def missing_files(self) -> tuple[groups.RequiredFile, ...]:
        """Those of service.required_files that are not there, or empty."""
        return tuple(file for file in self.service.required_files if not secrets.present(file.path))

    def _keys(self, group: str, name: str, *, check: Any, hint: str) -> tuple[str, ...]:
        listed: tuple[str, ...] = getattr(getattr(self, group), name)
        path: str | None = getattr(getattr(self, group), f"{name}_file")
        filed = secrets.key_lines(path, key=f"{group}.{name}_file", check=check) if path else ()
        if not listed and not filed:
            where = f" and {path} holds none" if path else ""
            remedy = f"set {group}.{name} or {group}.{name}_file; {hint}"
            raise errors.SettingsError(f"{group}.{name} is empty{where}", hint=remedy)
        return tuple(dict.fromkeys((*listed, *filed)))


def _missing(key: str, hint: str) -> errors.SettingsError:
    variable = "KPBACKUP_" + key.upper().replace(".", "__")
    remedy = f"{hint} (in the settings file, or by {variable})"
    return errors.SettingsError(f"{key} is not set, and this command needs it", hint=remedy)
