"""Values that break dumps, and secrets that must never be seen: planted among the ordinary rows of `data.py`.

Every secret holds `KPDEMO-SECRET`, so that one search tells whether any of them is readable somewhere.
"""

from __future__ import annotations

import base64
import json
import random

MARKER = "KPDEMO-SECRET"
SECRET_TABLE = "kpdemo-secret-projects"
TOKEN_PREFIX = f"{MARKER}-token-"
LONG_NAME = "长" * 10 + "x" * 40  # as many characters as the column takes
KUBECONFIG_BYTES = 60 * 1024  # TEXT ends at 64 KiB

NESTED_JSON = json.dumps(
    {
        "env": "prod", "说明": "管理员 \"quoted\" \\ back\\\\slash",
        "lines": "a\r\nb\tc", "inner": json.dumps({"q": 'it\'s "x"', "n": None}),
    },
    ensure_ascii=False,
)

BODIES = (  # of operation_logs.request_body
    None,
    "",
    "-- Dump completed on 2026-05-01 10:00:00",
    "DELIMITER ;;\nDROP TABLE users;;\nDELIMITER ;",
    ";",
    "'); DROP DATABASE kubepolaris; -- ",
    "/*!50003 SET NAMES latin1 */; /*M!999999 - enable the sandbox mode */",
    "\\N", "NULL", "\\", "\\'", "`", "%s %d {0}", "\u0000nul\u001asub",
    NESTED_JSON,
    '{"yaml":"apiVersion: v1\\r\\nkind: Secret\\r\\ndata:\\r\\n  password: ' + MARKER + '-manifest"}',
    "管理员给运维组授权 🔐👩\u200d💻🇨🇳 \ufeff e\u0301 \u202eabc",
    '{"spec":"' + "长" * 1300 + "...(truncated)",
    " leading and trailing ",
)

INPUTS = (  # of terminal_commands.raw_input and exit_code
    ("\x1b[A\x1b[2K\tkubectl get pods\r", 0),
    ("".join(chr(code) for code in range(32)) + "\x7f", 130),
    (f"kubectl create secret generic db --from-literal=password={MARKER}-typed", 0),
    ("echo 你好 🚀; exit 7", 7),
    ("kill -9 $$", -9),
    ("", None),
    (None, None),
    ("-- Dump completed", 1),
    ("\\", 255),
)


def kubeconfig(rng: random.Random, name: str, size_bytes: int) -> str:
    """A kubeconfig of exactly `size_bytes`, with certificates and a marked token, as plain as the application stores it."""
    head = (
        "apiVersion: v1\nkind: Config\nclusters:\n- name: " + name + "\n  cluster:\n    server: https://10.0.0.1:6443\n"
        f"users:\n- name: admin\n  user:\n    token: {MARKER}-kubeconfig-{name.encode().hex()[:24]}\n    client-key-data: "
    )
    missing = size_bytes - len(head.encode()) - 1
    filler = base64.b64encode(rng.randbytes(missing)).decode()[:missing]
    return head + filler + "\n"


def pem(rng: random.Random, kind: str, *, size_bytes: int = 1100) -> str:
    """Text in the form of a PEM file: lines of 64 characters with line ends."""
    text = base64.b64encode(rng.randbytes(size_bytes)).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])
