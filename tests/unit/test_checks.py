"""What `doctor` says of a machine, without a broker."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from citybrain.checks import Check, all_checks, skew
from citybrain.clock import wall_clock
from citybrain.settings import Settings


def found(data: Path, **more: str | int) -> dict[str, Check]:
    """Checks that are not ok, by name."""
    settings = Settings(data=str(data), **more)  # type: ignore[arg-type]  # names are checked by Settings
    return {c.name: c for c in all_checks(settings, wall_clock) if c.state != "ok"}


def test_a_fresh_machine_has_nothing_wrong(tmp_path: Path) -> None:
    bad = found(tmp_path / "data")
    assert set(bad) - {"disk"} == {"broker"}
    assert bad["broker"].state == "warning"
    assert "citybrain up" in bad["broker"].mend
    assert not (tmp_path / "data").exists()  # looking changes nothing


def test_a_pack_that_is_broken_is_named_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "city.toml").write_text("id = 'x'")
    bad = found(tmp_path / "data", city=str(tmp_path))["pack"]
    assert (bad.state, bad.code) == ("wrong", 4)
    assert "sensors.csv: missing" in bad.found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    bad = found(tmp_path / "data")["permissions"]
    tmp_path.chmod(0o700)
    assert (bad.state, bad.code) == ("wrong", 3)


def test_secrets_that_others_can_read_are_wrong(tmp_path: Path) -> None:
    secret = tmp_path / "secrets" / "tokens.json"
    secret.parent.mkdir()
    secret.write_text("{}")
    secret.chmod(0o644)
    assert found(tmp_path)["secrets"].mend == f"chmod go-rwx {secret}"
    secret.chmod(0o600)
    assert "secrets" not in found(tmp_path)


def test_a_process_that_died_without_cleaning_up_is_named(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    run = tmp_path / "run" / "worker-1.json"
    run.parent.mkdir()
    run.write_text(json.dumps({"process": "worker-1", "pid": gone.pid, "port": 1, "started_ms": 1}))
    bad = found(tmp_path)["processes"]
    assert bad.state == "warning"
    assert "worker-1" in bad.found
    run.write_text("{")
    assert f"remove {run}" in found(tmp_path)["processes"].mend


def test_a_port_that_somebody_else_has_is_wrong(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in found(tmp_path, page_port=port)["ports"].found
    assert "ports" not in found(tmp_path, page_port=port)


def test_a_broker_that_does_not_answer_is_wrong_with_its_code(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    bad = found(tmp_path, broker=f"127.0.0.1:{unused_tcp_port}")["broker"]
    assert (bad.state, bad.code) == ("wrong", 5)
    assert f"127.0.0.1:{unused_tcp_port}" in bad.found
    assert found(tmp_path, broker="nonsense")["broker"].code == 2


@pytest.mark.parametrize(
    ("ahead_ms", "round_trip_ms", "state"),
    [
        (0, 2, "ok"),
        (-900, 2, "ok"),
        (1_500, 2, "warning"),
        (1_500, 3_000, "ok"),  # a slow answer proves nothing
        (-5_000, 100, "warning"),
        (61_000, 2, "wrong"),
    ],
)
def test_a_clock_is_judged_by_what_is_sure(ahead_ms: int, round_trip_ms: int, state: str) -> None:
    assert skew(ahead_ms, round_trip_ms).state == state
