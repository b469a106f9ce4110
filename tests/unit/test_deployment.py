"""What is deployed: pinned, checked for health, without a default password, reachable only where
it should be."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner

from citybrain.cli.main import COMMANDS, build
from citybrain.process import metrics_door

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {name for name, service in SERVICES.items() if "CITYBRAIN_IMAGE" in service["image"]}


@pytest.mark.parametrize("name", SERVICES)
def test_every_long_running_service_says_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    waited_for = [
        service["depends_on"].get(name, {}).get("condition")
        for service in SERVICES.values()
        if "depends_on" in service
    ]
    if check.get("disable"):
        assert set(waited_for) - {None} == {"service_completed_successfully"}
    else:
        assert check["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    image = SERVICES[name]["image"].removeprefix("${CITYBRAIN_IMAGE:-").rstrip("}")
    assert re.search(r":v?\d+\.\d+\.\d+$|@sha256:[0-9a-f]{64}$", image), image


def test_every_base_image_is_pinned() -> None:
    for base in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+-|@sha256:[0-9a-f]{64}$", base), base


def test_no_password_is_written_down_anywhere() -> None:
    for path in [ROOT / "compose.yaml", *(ROOT / "deploy").rglob("*.*")]:
        for line in path.read_text().splitlines():
            found = re.match(r"(?i)\s*[\w.]*(password|secret|token)\w*\s*[:=]\s*(\S+)", line)
            if found and not line.lstrip().startswith("#"):
                assert re.match(r"\[|\$\{\w+:\?|/run/secrets/|\"/run/secrets/|/data/secrets|"
                                r"[A-Z_]+$|mosquitto|/mosquitto", found[2]), line  # fmt: skip
    for line in (ROOT / "deploy" / "example.env").read_text().splitlines():
        assert line.startswith("#") or line.endswith("=") or not line


def test_what_must_be_set_has_no_default() -> None:
    text = (ROOT / "compose.yaml").read_text()
    asked = {line[:-1] for line in (ROOT / "deploy" / "example.env").read_text().splitlines()
             if line.endswith("=")}  # fmt: skip
    for name in asked:
        assert re.search(rf"\$\{{{name}:\?", text), name
        assert not re.search(rf"\$\{{{name}:?-", text), name


def test_only_the_page_and_the_edge_agent_are_reachable_and_only_from_this_machine() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert published.keys() == {"centre", "edge"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name, service in SERVICES.items():
        assert service["networks"] == (["inside", "door"] if name in published else ["inside"])
        assert not service.get("privileged")
        assert "network_mode" not in service


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_process_is_a_command_of_ours_without_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["command"][0] in COMMANDS
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", sorted(OURS))
def test_its_options_are_known(name: str) -> None:
    command = SERVICES[name]["command"]
    options = [word for word in command if word.startswith("--")]
    if options:
        from typer.testing import CliRunner

        told = CliRunner().invoke(build(command[0]), [command[0], "--help"]).output
        assert all(option in re.sub(r"\x1b\[[\d;]*m", "", told) for option in options)


def test_volumes_and_secrets_that_are_used_are_declared_and_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source
        for secret in service.get("secrets", []):
            assert secret in COMPOSE["secrets"]


def test_the_image_runs_as_nobody_special_and_installs_by_hash() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("FROM ") :]
    assert "USER citybrain" in final
    assert final.index("USER citybrain") < final.index("ENTRYPOINT")
    for line in DOCKERFILE.replace("\\\n", " ").splitlines():
        if "pip install" in line:
            for call in re.findall(r"pip install[^&]*", line):
                assert "--require-hashes" in call or "--no-index" in call, call
    assert 'ENTRYPOINT ["citybrain"]' in final


@pytest.mark.parametrize("lock", ["image.lock", "build.lock", "node.lock"])
def test_locks_hash_everything_and_name_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    pins = re.findall(r"^([a-z0-9][\w.\[\]-]*)==", text, re.MULTILINE)
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)


def test_containers_put_their_metrics_where_the_health_check_asks() -> None:
    address, port = metrics_door(COMPOSE["x-citybrain"]["environment"]["CITYBRAIN_METRICS"])
    assert address == "0.0.0.0"
    assert f"http://127.0.0.1:{port}/health" in str(COMPOSE["x-citybrain"]["healthcheck"]["test"])
    assert f"http://127.0.0.1:{port}/health" in DOCKERFILE
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    found = scraped["scrape_configs"][0]["dns_sd_configs"][0]
    assert found["port"] == port
    assert set(found["names"]) == OURS - {"topics"}


def _by_schema(path: Path) -> tuple[int, str]:
    """What the schema of the Compose Specification makes of a file."""
    done = CliRunner().invoke(
        check_jsonschema, ["--builtin-schema", "vendor.compose-spec", str(path)]
    )
    return done.exit_code, done.output


def test_the_compose_file_is_as_its_specification_says(tmp_path: Path) -> None:
    assert _by_schema(ROOT / "compose.yaml") == (0, "ok -- validation done\n")
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((ROOT / "compose.yaml").read_text().replace("healthcheck:", "healthchek:"))
    code, told = _by_schema(wrong)
    assert code == 1
    assert "healthchek" in told


@pytest.mark.parametrize("name", sorted(OURS - {"topics"}))
def test_a_service_that_keeps_something_keeps_it_in_a_volume(name: str) -> None:
    """The image is read-only: what a process writes is on a volume or in memory."""
    kept = {
        "edge": {"/data/edge", "/data/secrets"}, "historian": {"/data/history"},
        "fitter": {"/data/history"}, "centre": {"/data/centre", "/data/secrets", "/data/history"},
    }.get(name, set())  # fmt: skip
    volumes = {v.split(":")[1] for v in SERVICES[name].get("volumes", [])}
    assert kept <= volumes
    assert "/data/run" in SERVICES[name]["tmpfs"]


def test_whoever_looks_at_the_tokens_of_people_is_not_the_door_of_devices() -> None:
    volume = {
        name: next(v for v in SERVICES[name]["volumes"] if v.endswith(":/data/secrets"))
        for name in ("edge", "centre")
    }
    assert volume["edge"] != volume["centre"]


def test_compose_itself_takes_the_file() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    names = re.findall(r"^(\w+)=$", (ROOT / "deploy" / "example.env").read_text(), re.MULTILINE)
    command = [docker, "compose", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"]
    without = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert without.returncode != 0
    given = os.environ | dict.fromkeys(names, "x")
    done = subprocess.run(command, capture_output=True, text=True, env=given, cwd="/")
    assert done.returncode == 0, done.stderr
