"""Being asked to end, by SIGTERM or SIGINT: in order where there is something to save, else at once. Standard library only."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal has ended the program. code: what it exits with, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


def at_once(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


class Patience:
    """While it is held, a signal is only noted, so that a run can save what it has; a second SIGINT ends the program at once.

    Several runs of one process may hold it. asked: the signal's number, None: nobody has asked.
    """

    asked: int | None = None
    held = 0

    def __enter__(self) -> Patience:
        self.held += 1
        if self.held > 1:
            return self
        mine = threading.current_thread() is threading.main_thread()  # elsewhere Python lets nobody handle signals
        self._before: dict[signal.Signals, Any] = {one: signal.signal(one, self._note) for one in SIGNALS if mine}
        return self

    def __exit__(self, *error: object) -> None:
        self.held -= 1
        if self.held:
            return
        for one, before in self._before.items():
            signal.signal(one, signal.SIG_DFL if before is None else before)  # None: not set from Python

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise Stopped(number)
        self.asked = self.asked or number
