"""What every process serves: /metrics, /health that means progress, a run file."""

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from citybrain.errors import SetupError
from citybrain.process import Health, living, running


def test_a_process_that_waits_is_not_healthy_and_says_for_what(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("citybrain_things", "Things.", registry=registry).inc(3)
    state = Health(ok=True)
    with running("probe", tmp_path, registry, lambda: state) as run:
        address = f"http://127.0.0.1:{run.port}"
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert b"citybrain_things_total 3.0" in answer.read()
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert json.load(answer)["ok"] is True
        state = Health(ok=False, waiting="the broker")
        with pytest.raises(urllib.error.HTTPError) as unwell:
            urllib.request.urlopen(f"{address}/health")
        assert unwell.value.code == 503
        assert json.load(unwell.value)["waiting"] == "the broker"
        assert [found.port for found in living(tmp_path)] == [run.port]
        with (
            pytest.raises(SetupError, match=f"127.0.0.1:{run.port}"),
            running("second", tmp_path, registry, lambda: state, port=run.port),
        ):
            pass
    assert living(tmp_path) == []
