"""The back end: KubePolaris' answers from a database it logs in to, with the traps of the real one.

`/healthz` and `/readyz` are constants that never ask the database. When it starts it makes what is not there: the database, its
tables, an administrator, three demonstration clusters: an empty database looks healthy. Every path outside /api answers 200 with
a page. A login writes: the time of it, and a row of the operation log.

Limits: the tables of `demo/schema.sql`; no paging but of totals; passwords are bcrypt as there, by the system's libcrypt.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pymysql

SCHEMA = Path(__file__).resolve().parents[3] / "demo" / "schema.sql"
PAGE = b"<!doctype html><title>KubePolaris</title>"
DEFAULT_PASSWORD = "KubePolaris@2026"
COST = "$2b$04$"  # the cheapest: these passwords protect nothing
DEMO_CLUSTERS = ("dev-cluster", "prod-cluster", "test-cluster")

_crypt = ctypes.CDLL("libcrypt.so.1").crypt
_crypt.restype = ctypes.c_char_p
_crypt_lock = threading.Lock()  # its answer lies in one buffer

Answer = tuple[int, Any]


class Unavailable(Exception):
    """The application cannot start: its pod would crash and be started again."""


class Application(ThreadingHTTPServer):
    """One back end on a port of its own. `environ` is its container's environment, `database` where its DB_HOST really is."""

    daemon_threads = True

    def __init__(self, environ: Mapping[str, str], database: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._login: dict[str, Any] = {
            "host": database[0], "port": database[1], "user": environ["DB_USER"], "password": environ["DB_PASSWORD"],
        }
        self._name, self._secret = environ["DB_NAME"], environ["JWT_SECRET"].encode()
        try:
            self._migrate()
        except pymysql.MySQLError as exc:
            self.server_close()
            raise Unavailable(str(exc)) from exc
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="kubepolaris", daemon=True).start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with (
            pymysql.connect(**self._login, database=self._name, autocommit=True) as connection,
            connection.cursor(pymysql.cursors.DictCursor) as cursor,
        ):
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def number(self, query: str) -> int:
        return int(next(iter(self.rows(query)[0].values())))

    def token(self, user: Mapping[str, Any], now: float) -> str:
        claims = {"user_id": user["id"], "username": user["username"], "auth_type": "local", "exp": int(now) + 86400}
        text = ".".join(_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        return f"{text}.{self._signature(text)}"

    def user_of(self, token: str) -> dict[str, Any] | None:
        text, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, self._signature(text)):
            return None
        payload = text.rpartition(".")[2]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        found = self.rows("SELECT id, username FROM users WHERE id = %s AND deleted_at IS NULL", claims["user_id"])
        return found[0] if found else None

    def _signature(self, text: str) -> str:
        return _encoded(hmac.digest(self._secret, text.encode(), hashlib.sha256))

    def _migrate(self) -> None:
        """What gorm's AutoMigrate and the first start do."""
        with pymysql.connect(**self._login, autocommit=True) as connection, connection.cursor() as cursor:
            _quietly(cursor, f"CREATE DATABASE IF NOT EXISTS `{self._name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci")
            cursor.execute(f"USE `{self._name}`")
            cursor.execute("SHOW TABLES")
            if not cursor.fetchall():
                for statement in SCHEMA.read_text("utf-8").split(";\n"):
                    if "CREATE TABLE" in statement:
                        cursor.execute(statement)
            cursor.execute("SELECT COUNT(*) FROM users")
            if (cursor.fetchone() or (0,))[0] == 0:
                cursor.execute(
                    "INSERT INTO users (username, password_hash, salt, email) VALUES"
                    " ('admin', %s, 'kubepolaris_salt', 'admin@kubepolaris.io')",
                    (hashed(DEFAULT_PASSWORD, "kubepolaris_salt"),),
                )
            cursor.execute("SELECT COUNT(*) FROM clusters")
            if (cursor.fetchone() or (0,))[0] == 0:
                names = [(name,) for name in DEMO_CLUSTERS]
                cursor.executemany("INSERT INTO clusters (name, api_server) VALUES (%s, 'https://x')", names)


class _Handler(BaseHTTPRequestHandler):
    server: Application

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        constants = {"/healthz": {"status": "ok"}, "/readyz": {"ready": True}}
        if path in constants:
            self._send(200, constants[path])
        elif path.startswith("/api/"):
            self._guarded(path)
        else:
            self._reply(200, "text/html; charset=utf-8", PAGE)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        if self.path != "/api/v1/auth/login":
            self._send(*_error(404, "NOT_FOUND", "not found"))
            return
        try:
            self._send(*self._log_in(asked))
        except pymysql.MySQLError:
            self._send(*_error(500, "INTERNAL_ERROR", "internal error"))

    def _guarded(self, path: str) -> None:
        try:
            if path not in _ANSWERS:
                self._send(*_error(404, "NOT_FOUND", "not found"))
                return
            user = self.server.user_of(self.headers.get("Authorization", "").removeprefix("Bearer "))
            if user is None:
                self._send(*_error(401, "UNAUTHORIZED", "invalid token"))
                return
            self._send(200, _ANSWERS[path](self.server, user))
        except pymysql.MySQLError:
            self._send(*_error(500, "INTERNAL_ERROR", "internal error"))

    def _log_in(self, asked: Mapping[str, str]) -> Answer:
        application = self.server
        found = application.rows("SELECT * FROM users WHERE username = %s AND deleted_at IS NULL", asked.get("username"))
        if not found or not is_right(asked.get("password", ""), found[0]):
            return _error(401, "UNAUTHORIZED", "invalid username or password")
        user = found[0]
        application.rows("UPDATE users SET last_login_at = NOW(3), last_login_ip = '127.0.0.1' WHERE id = %s", user["id"])
        application.rows(
            "INSERT INTO operation_logs (user_id, username, method, path, module, action, created_at)"
            " VALUES (%s, %s, 'POST', '/api/v1/auth/login', 'auth', 'login', NOW(3))", user["id"], user["username"],
        )
        now = time.time()
        told = {"id": user["id"], "username": user["username"]}
        return 200, {"token": application.token(user, now), "user": told, "expires_at": int(now) + 86400, "permissions": []}

    def _send(self, code: int, document: Any) -> None:
        self._reply(code, "application/json; charset=utf-8", json.dumps(document, default=str).encode())

    def _reply(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": items, "total": len(items), "page": 1, "pageSize": 10}


_THERE = "deleted_at IS NULL"
_ANSWERS = {
    "/api/v1/auth/me": lambda application, user: user,
    "/api/v1/users": lambda application, user: _page(application.rows(f"SELECT id, username FROM users WHERE {_THERE}")),
    "/api/v1/permissions/user-groups": lambda application, user: application.rows(
        f"SELECT id, name FROM user_groups WHERE {_THERE}"
    ),
    "/api/v1/permissions/cluster-permissions": lambda application, user: application.rows(
        f"SELECT id, cluster_id FROM cluster_permissions WHERE {_THERE}"
    ),
    "/api/v1/clusters": lambda application, user: _page(
        application.rows(f"SELECT id, name, version, status FROM clusters WHERE {_THERE}")
    ),
    "/api/v1/audit/operations": lambda application, user: {
        "items": [], "total": application.number("SELECT COUNT(*) FROM operation_logs"), "page": 1, "pageSize": 1,
    },
}


def hashed(password: str, salt: str) -> str:
    """What the column password_hash holds for a password."""
    return _bcrypt(password + salt, f"{COST}kubepolariskubepolaris")


def is_right(password: str, user: Mapping[str, Any]) -> bool:
    kept = str(user["password_hash"] or "")
    return kept.startswith("$2") and hmac.compare_digest(_bcrypt(password + str(user["salt"]), kept), kept)


def _bcrypt(text: str, setting: str) -> str:
    with _crypt_lock:
        return (_crypt(text.encode(), setting.encode()) or b"*").decode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _error(code: int, name: str, message: str) -> Answer:
    return code, {"error": {"code": name, "message": message}}


def _quietly(cursor: pymysql.cursors.Cursor, statement: str) -> None:
    """Without the note that it is there already, which the driver makes a warning of."""
    cursor.execute("SET SESSION sql_notes = 0")
    cursor.execute(statement)
