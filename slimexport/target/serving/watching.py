"""The thread that looks after a runtime while it serves: whether its run comes back, whether its bundle is still the one on
disk."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from slimexport.target.manifest import MANIFEST, MOST_BYTES
from slimtrain.base.untrusted.opening import read_file

log = logging.getLogger(__name__)

EVERY_S = 0.25
DISK_EVERY = 4  # looks: what is on disk is looked at once a second


class Watcher:
    """Calls `look` four times a second, and `look_at_disk` once, until it is ended. Neither ends it by an error."""

    def __init__(self, look: Callable[[], object], look_at_disk: Callable[[], object], every_s: float = EVERY_S) -> None:
        self._look, self._look_at_disk, self._every_s = look, look_at_disk, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="slimexport watches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Look no more; the thread is gone then."""
        self._ended.set()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join()

    def _watch(self) -> None:
        looks = 0
        while not self._ended.wait(self._every_s):
            looks += 1
            for look in (self._look, self._look_at_disk) if looks % DISK_EVERY == 0 else (self._look,):
                try:
                    look()
                except Exception:  # what watches must go on
                    log.exception("looking after the runtime failed")


class OnDisk:
    """A bundle's manifest as it was when this was made, and whether it is another one now. Its bytes are compared where the
    file is another one, or was written to."""

    def __init__(self, bundle: Path) -> None:
        self.path = bundle / MANIFEST
        self.stale = False
        self._identity = self._identify()
        self._digest = self._read()

    def look(self) -> bool:
        """Whether it is another one now, or gone."""
        if (identity := self._identify()) != self._identity:
            before, self._identity = self.stale, identity
            self.stale = self._read() != self._digest
            if self.stale and not before:
                log.warning(
                    "%s: was changed. What was opened is served; start again to serve what is there now", self.path.parent
                )
        return self.stale

    def _identify(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> bytes | None:
        try:
            return hashlib.sha256(read_file(self.path, MOST_BYTES)).digest()
        except OSError:
            return None
