"""`ubert-serve` as an operator starts it, in its own process on a free port."""

import queue
import re
import signal
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Self

import httpx

from support.processes import has_in_mask
from support.waiting import wait_until

_LISTENING = re.compile(r"listening on (http://\S+)")
_SECONDS_TO_START = 120.0
_SECONDS_TO_ANSWER = 60.0
_SECONDS_TO_END = 60.0


class ServeProcess:
    """Started on entry, killed on exit if it still runs. ``client`` sends it requests. ``port`` 0: any free one.

    ``hang_up_early``: send SIGHUP as soon as that does not kill it. ``changed_by``: Python code to run before it.
    """

    def __init__(self, *arguments: str, port: int = 0, hang_up_early: bool = False, changed_by: str = "") -> None:
        self._hang_up_early = hang_up_early
        program = ["-c", f"{changed_by}\nfrom ubert_service.entry import serve\nserve()"] if changed_by else []
        self._command = [sys.executable, *(program or ["-m", "ubert_service"]), *arguments, "--port", str(port)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self.log: list[str] = []
        addresses: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr, addresses))
        self._reader.start()
        if self._hang_up_early:
            wait_until(lambda: has_in_mask(self._process, "SigBlk", signal.SIGHUP))
            self.hang_up()
        try:
            address = addresses.get(timeout=_SECONDS_TO_START)
        except queue.Empty:
            address = None
        if address is None:
            self.kill()
            raise AssertionError(f"the service did not start: {''.join(self.log)}")
        self.address = address
        self.client = httpx.Client(base_url=self.address, timeout=_SECONDS_TO_ANSWER, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self.kill()

    def terminate(self) -> int:
        """Send SIGTERM, wait, and return the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=_SECONDS_TO_END)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=_SECONDS_TO_END)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _read(self, stderr: IO[str], addresses: "queue.Queue[str | None]") -> None:
        for line in stderr:
            self.log.append(line)
            if found := _LISTENING.search(line):
                addresses.put(found[1])
        addresses.put(None)  # the process has ended
