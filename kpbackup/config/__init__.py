"""Settings: one checked, frozen value from YAML file, environment and options.

Idea: `load` stacks the three (options beat environment beats file), refuses what it does not know with the
nearest known key, and validates the rest; commands then ask with `settings.need_...()` for what they use.
Limits: only `cli` and `service` import this package; lower rooms take plain values. Secrets are read from
files or the environment, when needed, and never shown. A crash leaves nothing behind: nothing is written.
"""

from kpbackup.config.drill import DrillApplicationSettings, DrillClusterSettings
from kpbackup.config.groups import (
    ArchiveSettings,
    EncryptionSettings,
    Group,
    Login,
    LogSettings,
    ObjectiveSettings,
    RequiredFile,
    RetentionSettings,
    RetiredKey,
    ScheduleSettings,
    ServiceSettings,
    SigningSettings,
    SourceSettings,
    TlsSettings,
)
from kpbackup.config.layers import DEFAULT_PATH
from kpbackup.config.notify import NotifySettings, WebhookSettings
from kpbackup.config.reading import load, refuse_nothing
from kpbackup.config.recovery import RecoverySettings, SqlCheck, StepSettings, TargetSettings, VerifySettings
from kpbackup.config.settings import Settings
from kpbackup.config.stores import CopySettings, RepositorySettings, StoreSettings

__all__ = [
    "DEFAULT_PATH", "ArchiveSettings", "CopySettings", "DrillApplicationSettings", "DrillClusterSettings", "EncryptionSettings",
    "Group", "LogSettings", "Login", "NotifySettings", "ObjectiveSettings", "RecoverySettings", "RepositorySettings",
    "RequiredFile", "RetentionSettings", "RetiredKey", "ScheduleSettings", "ServiceSettings", "Settings", "SigningSettings",
    "SourceSettings", "SqlCheck", "StepSettings", "StoreSettings", "TargetSettings", "TlsSettings", "VerifySettings",
    "WebhookSettings", "load", "refuse_nothing",
]  # fmt: skip
