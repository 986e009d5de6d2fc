"""What becomes of messages is counted by two threads: the channel's own, and whoever finds its queue full."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from kpbackup.service.messages import Message
from kpbackup.service.notify import Channel, Counted, Refused
from tests.integration.deployment import until

MESSAGES = 5_000  # without a lock a hundred of them are not counted
MESSAGE = Message("failure", "critical", "full", "shop", "title", "text", datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def threads_that_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_that_change_often")
def test_each_lost_message_is_counted_once() -> None:
    def refuse(message: Message) -> None:
        raise Refused("no", final=True)

    channel = Channel("hook", refuse, attempts=1, occasions=())
    for _ in range(MESSAGES):
        channel.put(MESSAGE)
    until(channel.is_idle, what="the queue to be empty")
    assert channel.counted == Counted(sent=0, lost=MESSAGES, delivered=False)
