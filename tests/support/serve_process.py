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

_LISTENING = re.compile(r"listening on (http://\S+)")
_SECONDS_TO_START = 120.0
_SECONDS_TO_ANSWER = 60.0
_SECONDS_TO_END = 60.0


class ServeProcess:
    """Started on entry, killed on exit if it still runs. ``client`` sends it requests. ``port`` 0: any free one."""

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self._command = [sys.executable, "-m", "ubert_service.commands.serve", *arguments, "--port", str(port)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        self.log: list[str] = []
        addresses: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(self._process.stderr, addresses))
        self._reader.start()
        try:
            self.address = addresses.get(timeout=_SECONDS_TO_START)
        except queue.Empty:
            self.kill()
            raise AssertionError(f"the service did not start: {''.join(self.log)}") from None
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

    def _read(self, stderr: IO[str], addresses: "queue.Queue[str]") -> None:
        for line in stderr:
            self.log.append(line)
            if found := _LISTENING.search(line):
                addresses.put(found[1])
