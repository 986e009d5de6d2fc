"""Settings of the application beside the database: where it runs, and what of it is kept with every backup."""

from __future__ import annotations

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

    @pydantic.model_validator(mode="after")
    def _something_to_find(self) -> Self:
        if not self.release and not self.selector:
            raise ValueError("neither release nor selector is set; name the Helm release, or the labels of the objects")
        return self
