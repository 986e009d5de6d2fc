"""Settings of drills: where the scratch server comes from."""

from __future__ import annotations

from datetime import timedelta

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group


class DrillClusterSettings(Group):
    """A scratch server in Kubernetes: a StatefulSet that lives for one drill, in a namespace where nothing gets out of its pod.
    It is taken before recovery.target. Needs the extra `kpbackup[kubernetes]`."""

    namespace: values.Text = pydantic.Field(min_length=1)
    """Scratch namespace, with nothing else in it. It is made if the account may, and then deleted again."""

    image: values.Text = pydantic.Field(min_length=1)
    """Image of the database, of the official kind (`mariadb:11.8`, `mysql:9.7`): the source's version or newer."""

    storage: values.Text = ""
    """Size of the volume, such as 40Gi: room for the restored databases. Empty: a directory of the node (emptyDir)."""

    storage_class: values.Text = ""
    """Storage class of the volume. Empty: the cluster's default."""

    user_id: int = pydantic.Field(default=999, ge=1)
    """Whom the image runs as. 999 is the official images'."""

    kubeconfig: values.Path | None = None
    """File that says how to reach the cluster. Unset: inside a pod its service account, else the file KUBECONFIG names."""

    context: values.Text = ""
    """Context of that file. Empty: its current one."""

    host: values.Text = ""
    """Where the server is reached from here. Empty: its Service's name, as inside the cluster; outside it needs a way in."""

    port: int = pydantic.Field(default=0, ge=0, le=65535)
    """Port at `host`. 0: 3306."""

    ready_timeout: values.Duration = pydantic.Field(default=timedelta(minutes=10), gt=timedelta())
    """Longest wait until the server is up, or gone. Ten minutes leave room to pull an image."""


class DrillApplicationSettings(Group):
    """Start the application's back end in the drill's namespace, and verify it. Only where this group is set, and only after a
    probe from in there could reach none of the addresses in `unreachable`. Needs drill.kubernetes and recovery.verify.profile."""

    unreachable: tuple[values.Text, ...] = pydantic.Field(min_length=1)
    """Addresses, each HOST:PORT, that pods of this cluster reach and the drill's must not: the cluster's own API server
    (`kubernetes.default.svc:443`), those of clusters the application manages."""

    database: values.Text = pydantic.Field(min_length=1)
    """Name by which the application reaches its database, such as `kubepolaris-mysql`: there it leads to the drill's."""

    url: values.Url | None = None
    """Where the back end is reached from here. Unset: its Service's name, as inside the cluster."""

    @pydantic.field_validator("unreachable")
    @classmethod
    def _are_addresses(cls, found: tuple[str, ...]) -> tuple[str, ...]:
        for one in found:
            host, _, port = one.rpartition(":")
            is_host = bool(host) and not any(char.isspace() or char in "[]/" for char in host)
            if not (is_host and port.isdigit() and 0 < int(port) < 65536):
                raise ValueError(f"{one!r} is not HOST:PORT")
        return found


class DrillSettings(Group):
    """Drills (`kpbackup drill`): the newest point and others are really restored, on the server of recovery.target, which must be
    empty, or without one on a server that is started for it. Nothing here is a schedule: cron or a CronJob starts drills."""

    programs: values.Path | None = None
    """Folder with `mysqld` (MySQL), or `mariadbd` and `mariadb-install-db` (MariaDB), of which the scratch server is started.
    Unset: those on PATH."""

    directory: values.Path | None = None
    """Folder for the scratch server's data; it needs the space of the restored databases. Unset: the system's temporary one."""

    kubernetes: DrillClusterSettings | None = None
    """Start the scratch server in a cluster and not on this machine."""

    application: DrillApplicationSettings | None = None
    """Start the application too. Left out: the database alone is verified, and the application is never started."""

    @pydantic.model_validator(mode="after")
    def _application_needs_cluster(self) -> DrillSettings:
        if self.application is not None and self.kubernetes is None:
            raise ValueError("application is set without kubernetes: it is started in the drill's namespace alone")
        return self
