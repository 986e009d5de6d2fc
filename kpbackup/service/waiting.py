"""Waiting for files that something else provides, such as a Secret that is not created yet.

Idea: a pod that ends at once for want of a Secret tells its reason in a log that nobody finds. So the web server answers first:
alive, not ready, and why not. Nothing else has begun, so a crash or a signal here leaves nothing behind.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from kpbackup import logs
from kpbackup.service import http

if TYPE_CHECKING:
    from kpbackup import config

LOOK_S = 1.0  # a Secret appears in a mounted volume within a minute; looking costs nothing

logger = logging.getLogger(__name__)


def wait_for_files(settings: config.Settings, stop: threading.Event) -> bool:
    """True when all of service.required_files are there, False when `stop` was set before.

    Raises:
        SettingsError: the address to listen on is taken.
    """

    def reason() -> str:
        return "; ".join(f"{file.origin} is missing ({file.path})" for file in settings.missing_files())

    def unready(query: http.Query) -> http.Answer:
        return http.json_answer(503, {"ready": False, "reason": reason()})

    def unhealthy(query: http.Query) -> http.Answer:
        return http.json_answer(503, {"status": "unhealthy", "database": "unknown", "reason": reason()})

    def front(query: http.Query) -> http.Answer:
        return http.text_answer(f"kpbackup has not begun: {reason()}\n")

    routes = {"/": front, "/api/health": unhealthy, "/api/health/ready": unready, "/api/health/live": http.alive}
    with http.WebServer(settings.service.address, routes) as web:
        web.start()
        while settings.missing_files():
            if stop.wait(LOOK_S):
                return False
    logs.event(logger, "files_found")
    return True
