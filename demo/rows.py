"""The rows of a KubePolaris database, as one seeded series: the same ones on every run, in four sizes.

Times count from one fixed moment and are wall times of Asia/Shanghai, as the application writes them. The first rows hold the
planted values of `planted.py`.

Limits: invented data; the row counts are guesses of what teams of 12, 180 and 2,500 users gather in a year. Secrets are fake.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from demo import planted

EPOCH = datetime(2026, 3, 1, 9, 0, 0)  # noqa: DTZ001 - a wall time without zone, like the columns it goes into
SEED = 42
FIRST_SESSION = 1001
VICTIM = "prod-shanghai"  # the cluster that the accident will delete

_MODULES = ("auth", "cluster", "node", "pod", "workload", "config", "network", "storage", "permission", "monitoring", "argocd")
_ACTIONS = ("create", "update", "delete", "apply", "scale", "rollback", "restart", "cordon", "drain", "sync", "test", "import")
_METHODS = ("POST",) * 12 + ("PUT",) * 5 + ("DELETE",) * 3
_COMMANDS = (
    "kubectl get pods -A", "kubectl logs -f deploy/nginx", "ls -la /var/log", "top -b -n1", "kubectl describe node n1", "df -h",
)

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Size:
    """Row counts. `log_copies` and `command_copies` say how often the server multiplies the generated log rows."""

    users: int
    groups: int
    members: int
    clusters: int
    permissions: int
    argocd: int
    tokens: int
    sessions: int
    commands: int
    logs: int
    command_copies: int = 1
    log_copies: int = 1

    @property
    def hour_of_writes(self) -> int:
        """Transactions that its users make in a busy hour: about seven each."""
        return 7 * self.users


SIZES = {
    "tiny": Size(5, 3, 6, 3, 4, 1, 20, 10, 60, 50),
    "small": Size(12, 4, 20, 4, 30, 1, 2000, 600, 9000, 25_000),
    "medium": Size(180, 15, 400, 40, 1500, 15, 20_000, 40_000, 9000, 25_000, 100, 67),
    "large": Size(2500, 60, 7000, 300, 25_000, 120, 50_000, 600_000, 150_000, 250_000, 100, 80),
}


class Generator:
    """All rows of one size. Draw the tables in the order of `tables`: they share one random series."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._rng = random.Random(SEED)
        self.user_ids = [number + (number > 3) * 10 for number in range(1, size.users + 1)]  # ids 4 to 13 were deleted
        self.cluster_ids = [number * 2 - 1 for number in range(1, size.clusters + 1)]
        self.names = ["admin", "a", planted.LONG_NAME, *(f"user{number:04d}" for number in range(4, size.users + 1))]
        self.clusters = [VICTIM, "测试集群 🧪", *(f"cluster-{number:03d}" for number in range(3, size.clusters + 1))]

    def tables(self) -> Iterator[tuple[str, Iterator[Row]]]:
        """Table names, each with all columns of its rows, in an order that foreign keys allow."""
        yield "users", self._users()
        yield "user_groups", self._groups()
        yield "user_group_members", self._members()
        yield "clusters", self._clusters()
        yield "cluster_permissions", self._permissions()
        yield "argocd_configs", self._argocd()
        yield "system_settings", self._settings()
        yield "ai_configs", iter([(1, "openai", "https://ai.example.net", f"{planted.MARKER}-ai", "m", 1, EPOCH, EPOCH, None)])
        yield "terminal_sessions", self._sessions()
        yield "terminal_commands", self._commands()
        yield "audit_logs", self._audit()
        yield "operation_logs", self._logs()
        yield "api_tokens", self._tokens()
        yield "cluster_capacity (cluster_id, cpu_millis, memory_mib, load_average)", self._capacity()
        yield f"`{planted.SECRET_TABLE}`", iter([(0, f"{planted.MARKER}-only-row 绝密")])

    def _at(self, seconds: float) -> datetime:
        return EPOCH + timedelta(seconds=int(seconds), milliseconds=self._rng.choice((0, 999, self._rng.randrange(1000))))

    def _users(self) -> Iterator[Row]:
        for index, (key, name) in enumerate(zip(self.user_ids, self.names, strict=True)):
            is_ldap, is_gone = index % 4 == 1, index == 4
            yield (
                key, name,
                "" if is_ldap else f"$2a$10${planted.MARKER}{self._rng.randrange(10**20):020d}",
                "kubepolaris_salt" if index == 0 else f"kp_{name[:24]}_salt", f"u{index}@example.net" if index != 1 else "",
                "管理员" if index == 0 else None if index == 2 else f"用户 {index} 👩\u200d💻", None if index % 3 else "",
                "ldap" if is_ldap else "local",
                "inactive" if is_gone else "active", None if index == 2 else self._at(index * 3600), "10.0.0.7",
                EPOCH, self._at(60), self._at(86_400) if is_gone else None,
            )

    def _groups(self) -> Iterator[Row]:
        names = ["运维组", "开发组", "只读组", *(f"group {number}" for number in range(4, self.size.groups + 1))]
        for number, name in enumerate(names[: self.size.groups], start=1):
            yield number * 3, name, None if number == 2 else "", EPOCH, EPOCH, self._at(9) if number == 3 else None

    def _members(self) -> Iterator[Row]:
        pairs = [(user, group * 3) for group in range(1, self.size.groups + 1) for user in self.user_ids]
        yield from pairs[: self.size.members]  # those of the first groups are in two groups or more

    def _clusters(self) -> Iterator[Row]:
        versions = ("v1.27.3", "v1.30.0", "v1.33.1")
        for index, (key, name) in enumerate(zip(self.cluster_ids, self.clusters, strict=True)):
            size_bytes = planted.KUBECONFIG_BYTES if index == 0 else self._rng.randrange(3000, 8000)
            auth = {"type": "basic", "username": "u", "password": f"{planted.MARKER}-prometheus"}
            yield (
                key, name, f"https://10.0.{index % 250}.1:6443",
                planted.kubeconfig(self._rng, name, size_bytes), planted.pem(self._rng, "CERTIFICATE"),
                None if index == 1 else f"{planted.MARKER}-sa-{index}", versions[index % 3],
                ("healthy", "unhealthy", "unknown")[index % 3], planted.NESTED_JSON if index == 0 else '{"env":"dev"}',
                self._at(31_536_000), self._at(index), self.user_ids[index % 3], EPOCH, EPOCH, None,
                json.dumps({"type": "prometheus", "endpoint": "http://prometheus:9090", "auth": auth}) if index == 0 else "{}",
                None if index == 2 else "[]",
            )

    def _permissions(self) -> Iterator[Row]:
        allowed = self.cluster_ids[:-1]  # the last cluster has none
        for number in range(1, self.size.permissions + 1):
            by_group = number % 5 == 0
            yield (
                number + (number > 2), allowed[number % len(allowed)],
                None if by_group else self._rng.choice(self.user_ids),
                3 * self._rng.randrange(1, self.size.groups + 1) if by_group else None,
                self._rng.choice(("admin", "ops", "dev", "readonly")),
                self._rng.choice(('["*"]', '["default","生产"]', "", None)), None, EPOCH, self._at(number), None,
            )

    def _argocd(self) -> Iterator[Row]:
        for number in range(1, self.size.argocd + 1):
            yield (
                number, self.cluster_ids[number - 1], 1, "https://argocd.example.net", "token",
                f"{planted.MARKER}-argocd-{number}", "admin", f"{planted.MARKER}-password", 0,
                "ssh://git@git.example.net/deploy.git", "main", "apps/", "ssh", "git", "",
                planted.pem(self._rng, "OPENSSH KEY"), "in-cluster", "default", "ok", EPOCH, None, EPOCH, EPOCH, None,
            )

    def _settings(self) -> Iterator[Row]:
        values = {
            "ldap_config": {"host": "ldap.example.net", "bind_password": f"{planted.MARKER}-ldap", "过滤": "(uid=%s)"},
            "ssh_config": {"private_key": planted.pem(self._rng, "SSH KEY")},
            "grafana_config": {"api_key": f"{planted.MARKER}-grafana"},
        }
        for number, (name, value) in enumerate(values.items(), start=1):
            yield number, name, json.dumps(value, ensure_ascii=False), "json", EPOCH, EPOCH, None

    def _sessions(self) -> Iterator[Row]:
        for number in range(self.size.sessions):
            start = self._at(number * 240)
            is_open = number % 17 == 0
            yield (
                FIRST_SESSION + number, self._rng.choice(self.user_ids), self._rng.choice(self.cluster_ids),
                ("kubectl", "pod", "node", "arthas")[number % 4],
                f'{{"pod":"nginx-{number}"}}', "default", f"nginx-{number}", "app", "",
                start, None if is_open else start + timedelta(minutes=7), 0,
                f"/app/data/terminal_replays/{number}.cast", number * 7,
                "active" if is_open else "closed", start, start, None,
            )

    def _commands(self) -> Iterator[Row]:
        for number in range(self.size.commands):
            typed = self._rng.choice(_COMMANDS) + f" # {number}\r"
            text, code = planted.INPUTS[number] if number < len(planted.INPUTS) else (typed, 0)
            at = self._at(number * 20)
            yield 1 + number, FIRST_SESSION + number % self.size.sessions, at, text, text and text.strip()[:1024], code, at

    def _audit(self) -> Iterator[Row]:
        for number in (1, 2, 5):
            yield number, 1, "login", "user", planted.NESTED_JSON, "success", "::1", None, None, self._at(number)

    def _logs(self) -> Iterator[Row]:
        for number in range(self.size.logs):
            rng, is_login_failure = self._rng, number % 50 == 3
            user, cluster = rng.randrange(len(self.user_ids)), rng.randrange(len(self.cluster_ids))
            has_cluster, is_right = number % 6 != 0, rng.random() < 0.96
            yield (
                self.log_id(number), None if is_login_failure else self.user_ids[user], self.names[user],
                rng.choice(_METHODS),
                f"/api/v1/clusters/{cluster}/deployments/default/app-{rng.randrange(400)}/scale",
                "" if number % 2 else "dryRun=All",
                rng.choice(_MODULES), "login_failed" if is_login_failure else rng.choice(_ACTIONS),
                self.cluster_ids[cluster] if has_cluster else None, self.clusters[cluster] if has_cluster else None,
                "default", "deployment",
                f"app-{rng.randrange(400)}", self._body(number), 200 if is_right else 500, is_right,
                None if is_right else "timeout: 连接超时",
                f"10.1.{user % 250}.{rng.randrange(250)}", "Mozilla/5.0 (X11; Linux x86_64)",
                rng.randrange(3000), self._at(number * 8),
            )

    def _body(self, number: int) -> str | None:
        if number < len(planted.BODIES):
            return planted.BODIES[number]
        words = self._rng.randrange(1, 30) if self._rng.random() < 0.97 else 330
        return json.dumps({"replicas": number % 9, "note": "".join(f"{self._rng.getrandbits(40):010x} " for _ in range(words))})

    def log_id(self, number: int) -> int:
        """Ids with a gap after every hundredth row."""
        return 1 + number + number // 100

    def _tokens(self) -> Iterator[Row]:
        for number in range(self.size.tokens):
            yield (
                f"{planted.TOKEN_PREFIX}{self._rng.getrandbits(64):016x}", self._rng.choice(self.user_ids),
                ("read", "read,write", "read,write,admin", "")[number % 4],
                self._rng.randbytes(16) if number % 3 else None, self._at(number),
            )

    def _capacity(self) -> Iterator[Row]:
        for number, key in enumerate(self.cluster_ids):
            yield key, 1500 * number, 4096, None if number == 1 else 0.1 * number
