"""Settings of the stores: the repository, its second copies, and the lock on what is written there."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group


class LockSettings(Group):
    """Object Lock: the bucket refuses to delete objects for some time, whoever asks. The bucket must have been made with it."""

    mode: Literal["off", "governance", "compliance"] = "off"
    """`governance` can be lifted by an account with that right, `compliance` by nobody, not even by the owner of the bucket:
    what is stored is paid for until its lock is over. Off by default, as most buckets cannot."""

    days: values.Whole | None = pydantic.Field(default=None, ge=1, le=36_500)
    """For how long. Unset, retention.days and the grace period: until then nothing is to be pruned anyway. Leases and probes
    are never locked."""

    @pydantic.field_validator("mode", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML takes a bare off for false


class StoreSettings(Group):
    """A store of objects. S3 credentials come by the usual AWS ways: environment, profile, instance role."""

    url: values.RepositoryUrl
    """`s3://bucket/prefix` or `file:///absolute/path`. One repository holds one source: several sources take several prefixes."""

    endpoint_url: values.EndpointUrl | None = None
    """Address of an S3 server that is not Amazon's, such as http://minio:9000."""

    region: values.Text | None = None
    """S3 region. Unset, the AWS configuration of the machine decides; servers that are not Amazon's rarely care."""

    profile: values.Text | None = None
    """Profile of the machine's AWS configuration that holds the credentials. Unset, the usual order of AWS decides."""

    ca_file: values.Path | None = None
    """PEM file of the authority that signed the S3 server's certificate, for an https:// endpoint_url of your own."""

    lock: LockSettings = LockSettings()

    @pydantic.model_validator(mode="after")
    def _s3_keys_need_s3(self) -> Self:
        given = self.endpoint_url or self.region or self.profile or self.ca_file or self.lock.mode != "off"
        if not self.url.startswith("s3://") and given:
            raise ValueError("endpoint_url, region, profile, ca_file and lock go with an s3:// url only")
        return self


class RepositorySettings(StoreSettings):
    """Where backups are kept. S3 credentials come by the usual AWS ways: environment, profile, instance role."""

    head_file: values.Path | None = None
    """File on this machine into which each backup writes the newest number of every log. Kept where the store cannot reach it,
    it shows removed newest entries and a store that serves an older state (`kpbackup check --expect-head`)."""


class CopySettings(StoreSettings):
    """One second copy of the repository, on a store of its own."""

    name: values.Text = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """What the copy is called, in `kpbackup --copy NAME` and as label `repository` of its metrics: small letters, digits, `-`."""

    max_age: values.Duration = pydantic.Field(default=timedelta(days=1), gt=timedelta())
    """How far the copy's recovery point may be behind; `status` warns after it. A day forgives one night without a network."""

    grace_period: values.Duration = timedelta(days=7)
    """How long the copy keeps what the origin has released, counted from then; `kpbackup --copy NAME prune` deletes it after
    that. A week leaves time to notice a prune that should not have been."""
