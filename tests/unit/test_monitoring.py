"""Prometheus and Grafana: what they are told to do is valid, tested, and about real metrics."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from citybrain.dashboards.grafana.write import FOLDER, rendered
from citybrain.dashboards.prometheus.targets import targets, write_targets

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "dashboards" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
RULE_LIST: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]


def _promtool(*words: str, folder: Path = PROMETHEUS) -> None:
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed: make system")
    done = subprocess.run([promtool, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules(tmp_path: Path) -> None:
    _promtool("check", "rules", "rules.yml")
    _promtool("check", "config", "--syntax-only", "prometheus.yml")
    _promtool("check", "config", "--syntax-only", str(ROOT / "deploy" / "prometheus.yml"))


def test_rules_fire_when_they_should_and_only_then() -> None:
    _promtool("test", "rules", "rules_test.yml")


@pytest.mark.parametrize("alert", [r for r in RULE_LIST if "alert" in r], ids=lambda r: r["alert"])
def test_every_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["annotations"]["summary"]
    assert len(alert["annotations"]["action"]) > 20
    assert alert["labels"]["severity"] in ("warning", "critical")


def test_a_process_that_is_not_there_at_all_raises_an_alert() -> None:
    text = " ".join(rule["expr"] for rule in RULE_LIST if "alert" in rule)
    for role in ("worker", "edge", "historian"):
        assert re.search(rf'absent\(up\{{[^}}]*role="{role}"', text), role


def test_the_dashboards_are_what_the_code_says() -> None:
    for name, text in rendered().items():
        assert (FOLDER / f"{name}.json").read_text() == text, (
            "run: python -m citybrain.dashboards.grafana.write"
        )
    assert {path.stem for path in FOLDER.glob("*.json")} == rendered().keys()


def test_every_expression_of_the_dashboards_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    assert len(rules) > 20
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    _promtool("check", "rules", str(path))


def test_every_panel_says_what_it_shows_and_names_its_source() -> None:
    for text in rendered().values():
        for panel in json.loads(text)["panels"]:
            if panel["type"] != "row":
                assert panel["description"]
                assert panel["datasource"]["uid"] == "prometheus"


def test_recorded_series_that_the_dashboards_use_are_recorded() -> None:
    recorded = {rule["record"] for rule in RULE_LIST if "record" in rule}
    used = set(re.findall(r"citybrain:[a-z0-9_:]+", " ".join(expressions())))
    assert used
    assert used <= recorded


def test_every_living_process_becomes_a_target_and_a_dead_one_does_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    dead = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True).stdout
    for name, pid, port in (("worker-2", os.getpid(), 9001), ("edge", int(dead), 9002)):
        (run / f"{name}.json").write_text(
            json.dumps({"process": name, "pid": pid, "port": port, "started_ms": 1})
        )
    assert targets(tmp_path) == [
        {"targets": ["127.0.0.1:9001"], "labels": {"process": "worker-2", "role": "worker"}}
    ]
    assert json.loads(write_targets(tmp_path).read_text()) == targets(tmp_path)


def expressions() -> list[str]:
    """Every expression of every panel."""
    found: list[str] = []
    for text in rendered().values():
        for panel in json.loads(text)["panels"]:
            found += [target["expr"] for target in panel.get("targets", [])]
    return found
