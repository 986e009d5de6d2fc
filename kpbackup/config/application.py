"""Settings of the application beside the database: where it runs, and what of it is kept with every backup."""

from __future__ import annotations

import itertools
import os
from typing import Self

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group


class ApplicationSettings(Group):
    """The application in Kubernetes whose Secrets, ConfigMaps and release are kept with every backup. Leave the group out where
    there is none. Needs the extra `kpbackup[kubernetes]`."""

    kubeconfig: values.Path | None = None
    """File that says how to reach the cluster. Unset: inside a pod its service account, else the file KUBECONFIG names."""

    context: values.Text = ""
    """Context of that file. Empty: its current one."""

    namespace: values.Text = pydantic.Field(min_length=1)
    """Namespace of the application. No default: the wrong one would be backed up in silence."""

    release: values.Text = ""
    """Name of its Helm release. Chart, values and image tags are taken from Helm's own record of it."""

    selector: values.Text = ""
    """Labels of its objects, such as `app=shop`, where Helm is not used or the release's label is another one. Empty:
    `app.kubernetes.io/instance=RELEASE`."""

    secrets: tuple[values.Text, ...] = ()
    """Further Secrets by name. Those that pods, service accounts and Ingresses refer to are found by themselves."""

    config_maps: tuple[values.Text, ...] = ()
    """Further ConfigMaps by name; the same holds."""

    files: tuple[values.Path, ...] = ()
    """Folders with files of the application outside its database, such as recordings, as they are mounted where backups are made
    (read-only will do). All below them is kept with every full backup and by `kpbackup backup application`."""

    @pydantic.model_validator(mode="after")
    def _folders_apart(self) -> Self:
        names = sorted(f"{os.path.normpath(path)}/" for path in self.files)
        if any(not name.startswith("/") for name in names):
            raise ValueError("files must be absolute paths of folders")
        if any(after.startswith(before) for before, after in itertools.pairwise(names)):
            raise ValueError("files names a folder twice, or one inside another")
        return self

    @pydantic.model_validator(mode="after")
    def _something_to_find(self) -> Self:
        if not self.release and not self.selector:
            raise ValueError("neither release nor selector is set; name the Helm release, or the labels of the objects")
        return self
