"""Settings: flag > environment > file > default, and errors that name the key."""

from pathlib import Path

import pytest

from citybrain.errors import UsageError
from citybrain.settings import resolve


def test_the_nearest_word_wins_and_says_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "citybrain.toml"
    file.write_text('city = "from-file"\nworkers = 2\ndata = "d"\n')
    environment = {"CITYBRAIN_CITY": "from-environment", "CITYBRAIN_WORKERS": "3"}
    got, sources = resolve({"city": "from-flag", "workers": None}, environment, file)
    assert (got.city, got.workers, got.data, got.broker) == ("from-flag", 3, "d", "")
    assert [sources[k].where for k in ("city", "workers", "data", "broker")] == [
        "flag", "environment", "file", "default",
    ]  # fmt: skip


def test_an_unknown_key_in_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "citybrain.toml"
    file.write_text('citty = "x"\n')
    with pytest.raises(UsageError, match="citty: not a setting"):
        resolve({}, {}, file)


def test_a_value_of_the_wrong_type_names_the_key_and_no_secret() -> None:
    with pytest.raises(UsageError, match="workers") as refused:
        resolve({}, {"CITYBRAIN_WORKERS": "many", "CITYBRAIN_SASL_PASSWORD": "hunter2"})
    assert "hunter2" not in str(refused.value)
