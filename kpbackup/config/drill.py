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
