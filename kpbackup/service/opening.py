"""From settings to the values the lower rooms take: endpoints, keys, an open repository, requests.

Each function asks for what it needs and raises SettingsError naming the missing key; nothing is opened before.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kpbackup import config, errors
from kpbackup.pipeline import age_texts, encrypt, sign

if TYPE_CHECKING:
    from kpbackup.backup.application import ApplicationRequest
    from kpbackup.backup.archiver import ArchiveRequest
    from kpbackup.backup.full import FullRequest
    from kpbackup.kubernetes import scratch
    from kpbackup.mysql.server import Endpoint
    from kpbackup.mysql.tiering import Tiers
    from kpbackup.recovery import drill_application
    from kpbackup.recovery.steps import Environment, Replaying, Verification
    from kpbackup.repository.binding import Repository
    from kpbackup.storage.backend import Backend
    from kpbackup.storage.locks import Lock


def backend(settings: config.Settings) -> Backend:
    """The store that holds the repository."""
    return _store(settings, settings.need_repository())


def copy_backend(settings: config.Settings, name: str) -> Backend:
    """The store that holds this copy."""
    wanted = settings.need_copy(name)
    return _store(settings, wanted)


def _store(settings: config.Settings, wanted: config.StoreSettings) -> Backend:
    from kpbackup import storage

    return storage.open_backend(
        wanted.url,
        endpoint_url=wanted.endpoint_url,
        region=wanted.region,
        profile=wanted.profile,
        ca_file=wanted.ca_file,
        lock=_lock(settings, wanted),
    )


def _lock(settings: config.Settings, wanted: config.StoreSettings) -> Lock | None:
    """What is put on every object: by default until retention would release it."""
    from kpbackup.repository import layout
    from kpbackup.storage import locks, probe

    if wanted.lock.mode == "off":
        return None
    kept = settings.retention
    period = timedelta(days=wanted.lock.days) if wanted.lock.days else timedelta(days=kept.days) + kept.grace_period
    return locks.Lock(wanted.lock.mode, period, (layout.LEASES, probe.PREFIX))


def reading_repository(settings: config.Settings) -> Repository:
    """The repository, verified with the configured public keys; it signs only if a signing key is configured."""
    from kpbackup.repository import binding

    key = signing_key(settings) if settings.signing.key_file else None
    configured = settings.signing.public_keys or settings.signing.public_keys_file
    public = tuple(sign.PublicKey.parse(text) for text in settings.need_public_keys()) if configured or key is None else ()
    public = _with_retired(settings, public)
    return binding.open_repository(backend(settings), public_keys=public, signing_key=key)


def _with_retired(settings: config.Settings, public: tuple[sign.PublicKey, ...]) -> tuple[sign.PublicKey, ...]:
    """The trusted keys; a retired one is trusted up to its head alone, even if it still stands among the others."""
    from kpbackup.repository import trust
    from kpbackup.service import head_file

    retired = [
        trust.RetiredKey.of(sign.PublicKey.parse(one.public_key), head_file.read(one.head_file))
        for one in settings.signing.retired
    ]
    over = {key.public for key in retired}
    return (*(key for key in public if key.public not in over), *retired)


def writing_repository(settings: config.Settings) -> Repository:
    """The repository, with the signing key that writing needs.

    Raises:
        UsageError: the settings look at a copy.
    """
    refuse_copy(settings)
    settings.need_signing_key()
    return reading_repository(settings)


def refuse_copy(settings: config.Settings) -> None:
    """Raises UsageError when the settings look at a copy: what was written there alone, no copying could ever join."""
    if settings.copy_name:
        raise errors.UsageError(
            f"--copy {settings.copy_name}: a copy is read, checked, restored from and pruned; `kpbackup copy` alone writes to it",
            hint="leave --copy out to write into the repository",
        )


def signing_key(settings: config.Settings) -> sign.SigningKey:
    text, password = settings.need_signing_key()
    try:
        return sign.SigningKey.parse(text.get_secret_value(), password=password.get_secret_value() if password else None)
    except errors.KpbackupError as exc:
        hint = exc.hint or "bring back the file that `kpbackup init` made, or make another with `kpbackup keys signing FILE`"
        raise errors.KeyProblem(f"signing.key_file {settings.signing.key_file}: {exc.message}", hint=hint) from exc


def recipients(settings: config.Settings) -> tuple[encrypt.Recipient, ...]:
    return tuple(age_texts.parse_recipient(text) for text in settings.need_recipients())


def identities(settings: config.Settings) -> tuple[encrypt.Identity, ...]:
    """Every identity this machine has: of the identity file, sealed or not, else what the passphrase opens in the repository."""
    from kpbackup.repository import sealed_identity

    content = settings.need_identity()
    where = f"encryption.identity_file {settings.encryption.identity_file}"
    if content is None:
        return sealed_identity.open_stored(backend(settings), settings.need_passphrase().get_secret_value())
    if sealed_identity.is_sealed(content.get_secret_value()):
        passphrase = settings.need_passphrase().get_secret_value()
        return (sealed_identity.unseal(content.get_secret_value(), passphrase, what=where),)
    return _identities_in(content.get_secret_value(), where=where)


def _identities_in(content: bytes, *, where: str) -> tuple[encrypt.Identity, ...]:
    """The identities of a file in the clear (`age-keygen`'s and ours: comments, then one key a line)."""
    lines = content.decode(errors="replace").splitlines()
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not keys:
        raise errors.KeyProblem(f"{where} holds no identity", hint="it must have a line that begins with AGE-SECRET-KEY-1")
    try:
        return tuple(age_texts.parse_identity(key) for key in keys)
    except errors.KpbackupError as exc:
        hint = exc.hint or "bring back the file that `kpbackup init` made, as it was"
        raise errors.KeyProblem(f"{where}: {exc.message}", hint=hint) from exc


def source_endpoint(settings: config.Settings) -> Endpoint:
    source = settings.need_source()
    return _endpoint(source, settings.source_password().get_secret_value())


def target_endpoint(settings: config.Settings) -> Endpoint:
    target = settings.need_target()
    return _endpoint(target, settings.target_password().get_secret_value())


def full_request(settings: config.Settings, *, holder: str) -> FullRequest:
    from kpbackup.backup.full import FullRequest
    from kpbackup.model.selection import Selection

    source = settings.need_source()
    return FullRequest(
        endpoint=source_endpoint(settings),
        recipients=recipients(settings),
        holder=holder,
        databases=source.databases,
        selection=Selection(source.only, source.exclude),
        workers=settings.row_connections,
        bytes_per_second=source.bandwidth_limit,
    )


def archive_request(settings: config.Settings, *, holder: str) -> ArchiveRequest:
    from kpbackup.backup.archiver import ArchiveRequest

    return ArchiveRequest(
        endpoint=source_endpoint(settings),
        recipients=recipients(settings),
        holder=holder,
        segment_bytes=settings.archive.segment_bytes,
        spool_bytes=settings.archive.spool_bytes,
        interval_s=settings.archive.interval.total_seconds(),
        observe_interval_s=settings.archive.observe_interval.total_seconds(),
    )


def application_request(settings: config.Settings) -> ApplicationRequest | None:
    """What to keep of the application; None when the settings name none."""
    wanted = settings.application
    if wanted is None:
        return None
    from kpbackup.backup.application import ApplicationRequest
    from kpbackup.kubernetes.client import Access

    return ApplicationRequest(
        access=Access(wanted.namespace, str(wanted.kubeconfig or ""), wanted.context),
        recipients=recipients(settings),
        release=wanted.release,
        selector=wanted.selector,
        secrets=wanted.secrets,
        config_maps=wanted.config_maps,
        files=tuple(map(str, wanted.files)),
        endpoint=source_endpoint(settings) if settings.source is not None else None,
        databases=settings.source.databases if settings.source is not None else (),
    )


def environment(settings: config.Settings) -> Environment | None:
    """The cluster of a recovery; None when no step is driven by Kubernetes.

    Raises:
        SettingsError: the chart or the values file cannot be read.
    """
    recovery = settings.recovery
    if "kubernetes" not in (recovery.prepare.driver, recovery.deploy.driver, recovery.switch.driver):
        return None
    from kpbackup.kubernetes.client import Access
    from kpbackup.recovery.steps import Environment

    wanted, backed_up = recovery.application, settings.application
    kubeconfig = wanted.kubeconfig or (backed_up.kubeconfig if backed_up else None)
    return Environment(
        access=Access(wanted.namespace, str(kubeconfig or ""), wanted.context),
        release=wanted.release,
        in_place=wanted.in_place,
        database=recovery.prepare.database,
        method=recovery.deploy.method,
        chart_file=str(recovery.deploy.chart_file or ""),
        values=_values(recovery.deploy.values_file),
        service=recovery.switch.service,
        ingress=recovery.switch.ingress,
        timeout_s=wanted.ready_timeout.total_seconds(),
    )


def verification(settings: config.Settings) -> Verification | None:
    """How the application is asked; None when no profile is set.

    Raises:
        SettingsError: the profile is none.
    """
    wanted, switch = settings.recovery.verify, settings.recovery.switch
    if not wanted.profile:
        return None
    from kpbackup.recovery import profile
    from kpbackup.recovery.steps import Verification

    loaded = profile.load(wanted.profile)
    if loaded.needs_login and not wanted.user:
        raise errors.SettingsError(
            f"the profile {loaded.name} logs in, and recovery.verify.user is not set",
            hint="name an account of the application for verification, and the file of its password",
        )
    return Verification(
        profile=loaded,
        url=wanted.url or "",
        public_url=switch.public_url or "",
        user=wanted.user,
        password=settings.verification_password().get_secret_value(),
        ca_file=str(wanted.ca_file or ""),
        public_timeout_s=switch.public_timeout.total_seconds(),
    )


def replaying(settings: config.Settings) -> Replaying:
    """By which path archived transactions come into the target."""
    from kpbackup.mysql.replay import Listening
    from kpbackup.recovery.steps import Replaying

    found = settings.recovery.replay
    listening = Listening(found.host, found.port, tls=found.tls)
    return Replaying(found.path, listening, grouped=found.grouped, relaxed=found.relaxed)


def tiers(settings: config.Settings) -> Tiers:
    """Which tables may come later.

    Raises:
        SettingsError: the profile names none.
    """
    from kpbackup.mysql.tiering import Tiers

    wanted = settings.recovery.tiers
    if not wanted.profile:
        return Tiers(tuple(wanted.second), wanted.room)
    from kpbackup.recovery import profile

    found = profile.load(settings.recovery.verify.profile)
    if not found.second_tier:
        raise errors.SettingsError(
            f"recovery.tiers.profile is set, and the profile {found.name} names no second tier",
            hint="name its tables in recovery.tiers.second",
        )
    return Tiers(tuple(f"{found.database or '*'}.{table}" for table in found.second_tier), wanted.room)


def drill_verification(settings: config.Settings) -> Verification | None:
    """The profile for a drill, which asks the database alone and so needs no login unless it starts the application; None when
    no profile is set."""
    if not settings.recovery.verify.profile:
        return None
    started = settings.drill.application
    if started is not None and settings.drill.kubernetes is not None:
        found = verification(settings)
        assert found is not None
        return replace(found, public_url="")
    from kpbackup.recovery import profile
    from kpbackup.recovery.steps import Verification

    return Verification(profile.load(settings.recovery.verify.profile))


def drill_cluster(wanted: config.DrillClusterSettings) -> scratch.Wanted:
    """The scratch server that a drill starts in a cluster."""
    from kpbackup.kubernetes import client, scratch

    return scratch.Wanted(
        access=client.Access(wanted.namespace, str(wanted.kubeconfig or ""), wanted.context),
        image=wanted.image,
        storage=wanted.storage,
        storage_class=wanted.storage_class,
        user_id=wanted.user_id,
        timeout_s=wanted.ready_timeout.total_seconds(),
    )


def drilled_application(settings: config.Settings) -> drill_application.Wanted | None:
    """The application that a drill starts; None where the settings do not say so.

    Raises:
        SettingsError: the profile does not say at which Service it is asked.
    """
    wanted, there = settings.drill.application, settings.drill.kubernetes
    if wanted is None or there is None:
        return None
    from kpbackup.recovery import drill_application, profile

    found = profile.load(settings.recovery.verify.profile)
    if not found.service:
        raise errors.SettingsError(
            "drill.application is set, and the profile names no `service`: what stands behind it would be started",
            hint="name it in the profile (docs/profiles.md)",
        )
    return drill_application.Wanted(
        drill_cluster(there), wanted.unreachable, wanted.database, found.service, found.port, wanted.url or ""
    )


def _values(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    key = "recovery.deploy.values_file"
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.safe_load(file)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as exc:  # the text may hold secrets: it is not repeated
        message = f"{key}: {path} cannot be read as YAML: {type(exc).__name__}"
        raise errors.SettingsError(message, hint="write it as for `helm --values`") from None
    if not isinstance(found, dict | None):
        raise errors.SettingsError(f"{key}: {path} must hold keys and values", hint="write it as for `helm --values`")
    return found or {}


def _endpoint(login: config.Login, password: str) -> Endpoint:
    from kpbackup.mysql.server import Endpoint, Tls

    tls = Tls(
        required=login.tls.required,
        ca_file=login.tls.ca_file,
        verify=login.tls.verify,
        certificate_file=login.tls.certificate_file,
        key_file=login.tls.key_file,
    )
    return Endpoint(host=login.host, port=login.port, user=login.user, password=password, tls=tls)
