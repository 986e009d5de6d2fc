"""Settings of a recovery: the server restored into and what drives each of the five steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

import pydantic

from kpbackup.config import values
from kpbackup.config.groups import Group, Login


class TargetSettings(Login):
    """The server restored into. Its account needs all privileges on what is restored."""

    max_connections: values.Whole = pydantic.Field(default=4, ge=1, le=64)
    """Connections a restore loads with at the same time; each has a second one for reading back. More than the server has
    cores gain little."""


class StepSettings(Group):
    """What every step of a recovery can have."""

    driver: Literal["manual", "command", "kubernetes", "none"]

    command: tuple[values.Text, ...] = ()
    """Program and arguments of the driver `command`, run without a shell. Exit 0 is success; the recovery is described
    to it in environment variables that begin with KPBACKUP_STEP_."""

    timeout: values.Duration = pydantic.Field(default=timedelta(hours=1), gt=timedelta())
    """Longest run of the command; then it is stopped and the step has failed. An hour is twice the default RTO: longer
    is a hang."""

    @pydantic.model_validator(mode="after")
    def _command_with_its_driver(self) -> Self:
        if self.driver == "command" and not self.command:
            raise ValueError("driver is `command` but command is empty; give a list: [program, argument, ...]")
        if self.driver != "command" and self.command:
            raise ValueError(f"command is set but driver is `{self.driver}`; set driver: command")
        return self


class TargetApplicationSettings(Group):
    """Where the drivers `kubernetes` recover the application to. Needs the extra `kpbackup[kubernetes]`."""

    kubeconfig: values.Path | None = None
    """File that says how to reach the cluster. Unset: `application.kubeconfig`; inside a pod its service account; else the
    file KUBECONFIG names."""

    context: values.Text = ""
    """Context of that file. Empty: its current one."""

    namespace: values.Text = ""
    """Namespace to recover into; made if need be. Empty: the one the bundle was taken from."""

    release: values.Text = ""
    """Name of the recovered Helm release. Empty: the one that was backed up. Another name lets both stand side by side."""

    in_place: bool = False
    """Take over an application that is in the namespace already: it is held at 0 replicas while its database is restored.
    Off by default, so that a running application is never stopped by a wrong namespace."""

    ready_timeout: values.Duration = pydantic.Field(default=timedelta(minutes=10), gt=timedelta())
    """Longest wait until a workload is ready. Ten minutes leave room to pull images on new nodes."""


class PrepareSettings(StepSettings):
    """Step 1: plan, keys, space and target are checked. These checks always run; a driver adds to them."""

    driver: Literal["manual", "command", "kubernetes", "none"] = "none"
    """`none`: the built-in checks alone. `kubernetes` makes namespace, Secrets and ConfigMaps from the bundle and holds the
    application at 0 replicas. `manual` waits for a person, `command` runs a program, after the checks."""

    database: values.Text = ""
    """StatefulSet of the bundle that is the target server; the driver `kubernetes` starts it and waits until it is ready.
    Empty: the target is there already."""


class DeploySettings(StepSettings):
    """Step 3: the application is started on the restored database."""

    driver: Literal["manual", "command", "kubernetes", "none"] = "manual"
    """`manual` says what to do and waits, because kpbackup cannot guess how the application is deployed; `kubernetes`
    deploys what is in the bundle; `command` runs a program; `none` skips the step, and the run is then not reported as
    recovered."""

    method: Literal["helm", "manifests"] = "helm"
    """How the driver `kubernetes` deploys: by Helm, with the chart and the values of the bundle (`helm` on PATH, else the
    extra `kpbackup[helm]`), or by applying the bundle's objects as they were."""

    chart_file: values.Path | None = None
    """Packed chart (.tgz) to install in the place of the one made from Helm's own record. Needed for charts that depend on
    other charts: those are not in the record."""

    values_file: values.Path | None = None
    """YAML file of values laid over those of the bundle, such as another database host. It may hold secrets: keep it
    readable for its owner alone."""

    files_directory: values.Path | None = None
    """Folder below which the bundle's files (`application.files`) are put before the application starts, each under the path it
    had: of /data/recordings in FOLDER/data/recordings. Unset: they are not restored."""


class SqlCheck(Group):
    """One question to the restored database and its right answer."""

    query: values.Text = pydantic.Field(min_length=1)
    """A SELECT; the first column of its first row is compared."""

    expect: values.Answer
    """The value that must come back, compared as text: `expect: 42` and `expect: \"42\"` mean the same."""


class VerifySettings(StepSettings):
    """Step 4: the restored database is judged. Built-in checks always run, then `sql`, then the profile, then the driver."""

    profile: values.Text = ""
    """What the application must answer: `kubepolaris`, `generic`, or the path of a profile of your own (docs/profiles.md).
    Empty: the application is not asked."""

    url: values.Url | None = None
    """Address of the restored application itself, not of anything in front of it that answers for it, such as
    http://kubepolaris-backend.kubepolaris.svc:8080. Unset with the driver `kubernetes` of step 3 and a profile that names a
    Service: that Service, as seen from inside the cluster."""

    user: values.Text = ""
    """Account of the application that verification logs in with. Make one for this purpose, with the right to read; its
    password is the one it had when the backup was made."""

    password_file: values.Path | None = None
    """File that holds its password; one trailing newline is dropped."""

    password: pydantic.SecretStr | None = None
    """The password itself, from the environment alone."""

    ca_file: values.Path | None = None
    """PEM file of the authority that signed the application's certificate. Unset: those the system trusts."""

    driver: Literal["manual", "command", "none"] = "none"
    """`none`: the built-in checks and `sql` alone. `command` runs a program that may ask the application itself."""

    sql: tuple[SqlCheck, ...] = ()
    """Questions the restored database must answer rightly: a list of {query, expect}."""

    @pydantic.model_validator(mode="after")
    def _one_password_and_a_profile(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both set; keep one")
        if (self.url or self.user) and not self.profile:
            raise ValueError("url or user is set without a profile; set profile: kubepolaris, generic, or a path")
        return self


class SwitchSettings(StepSettings):
    """Step 5: users are sent to the recovered application. Runs only after step 4 succeeded."""

    driver: Literal["manual", "command", "kubernetes", "none"] = "manual"
    """`manual` says what to do and waits, because this step is seen by users; `kubernetes` points a Service or an Ingress at
    the recovered release; `command` runs a program; `none` skips the step, and the run is then not reported as recovered."""

    service: values.Text = ""
    """Service whose selector is changed, in the application's namespace. Give this or `ingress`."""

    ingress: values.Text = ""
    """Ingress whose back ends are changed; made from the bundle where there is none. Its annotations and TLS stay."""

    public_url: values.Url | None = None
    """Address users come by. After the switch it must answer as the profile says, else the switch is reverted."""

    public_timeout: values.Duration = pydantic.Field(default=timedelta(minutes=1), gt=timedelta())
    """Longest wait for that answer. A minute lets an Ingress controller and caches follow."""

    @pydantic.model_validator(mode="after")
    def _something_to_switch(self) -> Self:
        if self.driver == "kubernetes" and bool(self.service) == bool(self.ingress):
            raise ValueError("the driver kubernetes needs either service or ingress")
        if self.driver == "kubernetes" and self.public_url is None:
            raise ValueError("the driver kubernetes needs public_url: without an answer from there nobody knows that it worked")
        return self


class ReplaySettings(Group):
    """How archived transactions come into the target."""

    path: Literal["auto", "served", "direct"] = "auto"
    """`served`: the target replicates from kpbackup, with its own parallel appliers. `direct`: kpbackup sends them over an
    ordinary connection, for targets that may not replicate (managed services) or cannot reach this machine. `auto`: the
    first of the two that the target proves in step 1 to be possible."""

    host: values.Text = ""
    """Name or address of this machine as the target knows it, for a target in another network. Empty: the address that
    this machine connects to the target from."""

    port: int = pydantic.Field(default=0, ge=0, le=65535)
    """Port the target connects to. 0: any free one; give one where a firewall or a Service stands in between."""

    tls: bool = True
    """Serve with TLS, by a certificate made for the one run. It keeps out whoever listens on the network; the target cannot
    verify it."""

    grouped: bool = True
    """MariaDB: up to 20 following small transactions commit as one, under the GTID of the last of them, which makes a replay
    several times faster. The restored data and GTID state are the same; the target's own binlog holds no GTIDs between.
    Set it to false where a replica shall go on from one of those. Not done where tables keep their history."""

    relaxed: bool = False
    """Let the target write its redo log and binlog once a second instead of at each commit while transactions are replayed
    (`innodb_flush_log_at_trx_commit` and `sync_binlog` are 0 meanwhile, and everything is flushed before the replay counts as
    done). If the target's server crashes or is restarted meanwhile, the restore must begin anew: `--resume` refuses. Worth it
    where each transaction commits by itself: MySQL, and MariaDB with `grouped: false`. Needs the right to set global variables
    (MariaDB: SUPER); without it nothing is changed."""


class TiersSettings(Group):
    """A restore in two phases: essential tables first, and while the application serves again, those of the second tier."""

    second: tuple[values.Text, ...] = ()
    """Tables that may come later: a list of DATABASE.TABLE, with * and ?, all in one database, each with an AUTO_INCREMENT
    primary key and without triggers. Empty: everything comes at once."""

    profile: bool = False
    """Take those that `verify.profile` names, when `second` is empty. For `kubepolaris` these are the operation, audit and
    terminal logs, which are nearly all of its bytes."""

    room: values.Whole = pydantic.Field(default=1_000_000, ge=1)
    """Numbers kept free between the highest that the backup gave and the first that the application gives meanwhile. A million
    is more than a busy application writes in the seconds that an archive may lack."""

    @pydantic.field_validator("second")
    @classmethod
    def _tables(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not all(pattern.partition(".")):
                raise ValueError(f"{pattern!r} names no table: write database.table, with * and ?")
        return value

    @pydantic.model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.second and self.profile:
            raise ValueError("second and profile are both set; keep one")
        return self


class RecoverySettings(Group):
    """How a recovery is done."""

    target: TargetSettings | None = None

    read_only: bool = False
    """Hold the target read-only from the moment the database is back until step 5 (MySQL: super_read_only; MariaDB: read_only,
    which its administrators pass), so that nobody writes too early. Off by default, because most applications write when
    they start or log somebody in, KubePolaris too, and would fail steps 3 and 4."""

    application: TargetApplicationSettings = TargetApplicationSettings()

    prepare: PrepareSettings = PrepareSettings()

    replay: ReplaySettings = ReplaySettings()

    tiers: TiersSettings = TiersSettings()

    deploy: DeploySettings = DeploySettings()

    verify: VerifySettings = VerifySettings()

    switch: SwitchSettings = SwitchSettings()

    @pydantic.model_validator(mode="after")
    def _a_switch_needs_a_profile(self) -> Self:
        if self.switch.public_url is not None and not self.verify.profile:
            raise ValueError("switch.public_url is set without verify.profile, which says what must be answered there")
        if self.tiers.profile and not self.verify.profile:
            raise ValueError("tiers.profile is set without verify.profile, which names the tables")
        return self
