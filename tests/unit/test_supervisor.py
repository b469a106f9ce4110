"""A city's processes come back after a crash, and none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from citybrain.up import supervisor
from citybrain.up.supervisor import Child, Supervisor

LIVES = "import time; print('here', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); " + LIVES


def child(tmp_path: Path, program: str, **more: int) -> Child:
    return Child("it", [sys.executable, "-c", program], tmp_path / "it.log", **more)  # type: ignore[arg-type]  # ints only


async def until(true: object, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # type: ignore[operator]  # a lambda
            await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACK_OFF_MS", (10, 20))


async def test_a_child_that_is_killed_comes_back(tmp_path: Path) -> None:
    keeper, it = Supervisor(), child(tmp_path, LIVES)
    await keeper.start(it)
    first = it.pid
    assert first
    os.kill(first, signal.SIGKILL)
    await until(lambda: it.pid not in (None, first))
    assert it.restarts == 1
    await keeper.stop_all()
    assert it.pid is None


async def test_a_child_whose_settings_are_wrong_is_not_tried_for_ever(tmp_path: Path) -> None:
    keeper, it = Supervisor(), child(tmp_path, "raise SystemExit(4)")
    await keeper.start(it)
    await until(lambda: it.failed)
    assert "exit code 4" in it.failed
    assert it.restarts == 0
    await keeper.stop_all()


async def test_a_child_that_ignores_the_request_is_killed_after_its_grace(tmp_path: Path) -> None:
    keeper, it = Supervisor(), child(tmp_path, STUBBORN, grace_ms=200)
    await keeper.start(it)
    await until(lambda: b"here" in it.log_file.read_bytes())
    assert await keeper.stop("it") == -signal.SIGKILL
    assert "200 ms" in it.failed


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import asyncio, sys
from pathlib import Path
from citybrain.up.supervisor import Child, Supervisor
async def main():
    keeper = Supervisor()
    it = Child("it", [sys.executable, "-c", {LIVES!r}], Path({str(tmp_path)!r}) / "it.log")
    await keeper.start(it)
    Path({str(pid_file)!r}).write_text(str(it.pid))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    await until(lambda: pid_file.exists() and pid_file.read_text())
    pid = int(pid_file.read_text())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


async def test_a_child_that_the_system_cannot_start_again_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, it = Supervisor(), child(tmp_path, LIVES)
    await keeper.start(it)
    first = it.pid
    assert first
    monkeypatch.setattr(it, "argv", [str(tmp_path / "gone")])
    os.kill(first, signal.SIGKILL)
    await until(lambda: "cannot be started" in it.failed)
    assert not keeper.health().ok
    monkeypatch.setattr(it, "argv", child(tmp_path, LIVES).argv)
    await until(lambda: it.pid not in (None, first))
    assert it.failed == ""
    await keeper.stop_all()
