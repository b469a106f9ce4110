"""`citybrain settings` shows where values come from and no secret."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citybrain.cli.main import build


def test_values_are_shown_with_their_sources_and_secrets_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "citybrain.toml"
    file.write_text('data = "here"\nwebhooks = "https://example.org/token-123"\n')
    monkeypatch.setenv("CITYBRAIN_SASL_PASSWORD", "hunter2")
    arguments = ["settings", "--file", str(file), "--city", "small"]
    result = CliRunner().invoke(build("settings"), [*arguments, "--json"])
    shown = json.loads(result.stdout)
    assert shown["city"] == {"value": "small", "from": "flag", "name": "--city"}
    assert shown["data"] == {"value": "here", "from": "file", "name": str(file)}
    assert shown["sasl_password"]["name"] == "CITYBRAIN_SASL_PASSWORD"
    text = CliRunner().invoke(build("settings"), arguments).stdout
    for output in (result.stdout, text):
        assert "hunter2" not in output
        assert "token-123" not in output
