"""Kafka's jars: nothing is taken that is not as locked, and no registry is named."""

import hashlib
from pathlib import Path

import pytest

from citybrain import jars
from citybrain.errors import SetupError
from citybrain.jars import Jar


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two jars, and a lock file that names them."""
    rows = []
    for name in ("kafka", "scala"):
        content = f"the jar of {name}".encode()
        (tmp_path / f"{name}-1.0.jar").write_bytes(content)
        rows.append(
            f'[[dependencies]]\ngroupId = "org"\nartifactId = "{name}"\nversion = "1.0"\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        )
    lock = tmp_path / "lock.toml"
    lock.write_text("".join(rows))
    monkeypatch.setattr(jars, "LOCK", lock)
    return tmp_path


def test_the_lock_file_has_every_hash_and_no_address() -> None:
    locked = jars.locked()
    assert {"kafka_2.13", "kafka-clients", "slf4j-jdk14"} <= {jar.artifact for jar in locked}
    assert all(len(jar.sha256) == 64 for jar in locked)
    assert len({jar.file for jar in locked}) == len(locked)
    for file in (jars.LOCK, jars.LOCK.with_name("jgo.toml")):
        assert "://" not in file.read_text()


def test_jars_are_fetched_once_and_old_ones_go(store: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def download(jar: Jar) -> Path:
        asked.append(jar.file)
        return store / jar.file

    into = tmp_path / "jars"
    found = jars.fetch(into, download)
    assert sorted(asked) == ["kafka-1.0.jar", "scala-1.0.jar"]
    assert [path.read_bytes() for path in found] == [b"the jar of kafka", b"the jar of scala"]

    (into / "kafka-0.9.jar").write_bytes(b"of the version before")
    (into / "scala-1.0.jar").write_bytes(b"bit rot")
    jars.fetch(into, download)
    assert asked[2:] == ["scala-1.0.jar"]
    assert sorted(path.name for path in into.iterdir()) == ["kafka-1.0.jar", "scala-1.0.jar"]


def test_a_download_that_was_cut_off_is_fetched_again(store: Path, tmp_path: Path) -> None:
    whole = (store / "kafka-1.0.jar").read_bytes()
    (store / "kafka-1.0.jar").write_bytes(whole[:5])

    def download(jar: Jar) -> Path:
        path = store / jar.file
        if not path.exists():
            path.write_bytes(whole)
        return path

    assert jars.fetch(tmp_path / "jars", download)[0].read_bytes() == whole


def test_a_jar_that_is_not_as_locked_is_refused(store: Path, tmp_path: Path) -> None:
    def download(jar: Jar) -> Path:
        path = store / jar.file
        path.write_bytes(b"another jar")
        return path

    with pytest.raises(SetupError, match=r"jars: kafka-1.0.jar: sha256 is \w{64}, expected \w{64}"):
        jars.fetch(tmp_path / "jars", download)
    assert list((tmp_path / "jars").iterdir()) == []


def test_a_jar_that_cannot_be_had_is_named(store: Path, tmp_path: Path) -> None:
    def download(jar: Jar) -> Path:
        raise RuntimeError("no route to host")

    with pytest.raises(SetupError, match=r"jars: org:kafka:1.0: cannot be fetched .*no route"):
        jars.fetch(tmp_path / "jars", download)


@pytest.mark.parametrize("text", ["[[dependencies]]\ngroupId = 'x'\n", "{"])
def test_a_damaged_lock_file_is_named(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "jgo.lock.toml"
    lock.write_text(text)
    with pytest.raises(SetupError, match=str(lock)):
        jars.locked(lock)


def test_the_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CITYBRAIN_JARS", str(tmp_path))
    assert jars.folder() == tmp_path
    monkeypatch.delenv("CITYBRAIN_JARS")
    assert jars.folder().name == "_jars", "a checkout keeps them beside the package"
