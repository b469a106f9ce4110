"""Apache Kafka's jars: fetched by jgo from Maven coordinates, each checked against its sha256.

`jgo.toml` beside this file names what is wanted, `jgo.lock.toml` what that came to. A checkout
keeps the jars in `citybrain/_jars`, an installed package in the user's cache folder.
"""

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from citybrain.errors import SetupError

_HERE = Path(__file__).parent
LOCK = _HERE / "jgo.lock.toml"


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar; `sha256` is hexadecimal."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name in the folder of jars."""
        return f"{self.artifact}-{self.version}.jar"


def locked(lock: Path | None = None) -> tuple[Jar, ...]:
    """Every jar of a lock file (default ours).

    Raises SetupError if the file cannot be read or lacks a hash.
    """
    lock = lock or LOCK
    try:
        rows = tomllib.loads(lock.read_text("utf-8"))["dependencies"]
        return tuple(
            Jar(r["groupId"], r["artifactId"], r["version"], r["sha256"].lower()) for r in rows
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise SetupError(f"jars: {lock}: expected jgo's lock file with a sha256 a jar: {error!r}")\
            from error  # fmt: skip


def folder() -> Path:
    """Where the jars belong: `CITYBRAIN_JARS`, else the checkout's, else the user's cache."""
    if given := os.environ.get("CITYBRAIN_JARS"):
        return Path(given)
    package = _HERE.parent
    if (package.parent / "pyproject.toml").is_file():
        return package / "_jars"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "citybrain" / "jars"


def _download(jar: Jar) -> Path:
    """A jar in jgo's own store. Repositories are those of jgo's configuration file."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise SetupError(
            "jars: jgo is not installed; pip install 'citybrain[broker]', or name a running"
            " cluster with --broker"
        ) from error
    settings = GlobalSettings.load()
    context = MavenContext(
        repo_cache=settings.repo_cache,
        remote_repos=settings.repositories or None,
        timeout=60,
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    found: Path = artifact.resolve()
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(jar: Jar, target: Path, download: Callable[[Jar], Path]) -> None:
    """Download one jar, check it, and move it into place whole."""
    found = ""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    for _ in range(2):
        try:
            source = download(jar)
            found = _sha256(source)
            if found == jar.sha256:
                shutil.copyfile(source, part)
                os.replace(part, target)
                return
        except SetupError:
            raise
        # jgo and its HTTP client raise many kinds; all mean that there is no jar.
        except Exception as error:
            raise SetupError(
                f"jars: {jar.group}:{jar.artifact}:{jar.version}: cannot be fetched into"
                f" {target.parent}: {error}"
            ) from error
        finally:
            part.unlink(missing_ok=True)
        # An earlier download that was cut off stays in jgo's store: once more from the source.
        source.unlink()
    raise SetupError(
        f"jars: {jar.file}: sha256 is {found}, expected {jar.sha256} as locked in {LOCK.name}"
    )


def fetch(into: Path | None = None, download: Callable[[Jar], Path] = _download) -> list[Path]:
    """Paths of all locked jars in a folder (default `folder()`), fetching what is missing or
    not as locked, and removing jars that the lock file does not name.

    Every jar's sha256 is checked at each call (43 MB, 0.1 s). Safe to call from several
    processes at once: a jar is moved into place whole.
    Raises SetupError naming the jar that cannot be fetched or is not as locked.
    """
    into = into or folder()
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f"jars: {into}: {error}") from error
    jars = {into / jar.file: jar for jar in locked()}
    missing = [
        path for path, jar in jars.items() if not path.is_file() or _sha256(path) != jar.sha256
    ]
    if missing:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: _put(jars[path], path, download), missing))
    for path in set(into.glob("*.jar")) - set(jars):
        path.unlink(missing_ok=True)
    return list(jars)


def lock() -> None:
    """Resolve `jgo.toml` anew and write `jgo.lock.toml`."""
    from jgo.env import EnvironmentBuilder, EnvironmentSpec, LinkStrategy
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as cache:
        builder = EnvironmentBuilder(
            context=MavenContext(), cache_dir=Path(cache), link_strategy=LinkStrategy.COPY
        )
        builder.resolve_lockfile(EnvironmentSpec.load(_HERE / "jgo.toml")).save(LOCK)
