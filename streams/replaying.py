"""A whole replay: recording in, Parquet files and an account out."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from citybrain import recording
from citybrain.batch import Batch, Heartbeat
from citybrain.city import City
from citybrain.history.writer import ReplayFiles
from citybrain.streams.replay import Engine


def run(
    city: City,
    path: Path,
    out: Path,
    start_ms: int | None = None,
    end_ms: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Replay a recording's readings of [start, end) into `out`. Returns what `--json` prints.

    Raises InvalidInput naming a row that does not fit the pack, SetupError if `out` cannot be
    written.
    """
    begin = time.monotonic()
    counted = 0

    def entries() -> Iterator[Batch | Heartbeat]:
        nonlocal counted
        for entry in recording.cut(path, city, start_ms=start_ms, end_ms=end_ms):
            if isinstance(entry, Batch):
                counted += len(entry)
            yield entry

    engine = Engine(city)
    with ReplayFiles(out) as files:
        for record in engine.feed(entries()):
            files.take(record)
    seconds = time.monotonic() - begin
    fates = engine.counts("rollup")
    digests = files.digests()
    return {
        "city": city.id,
        "pack": city.version,
        "recording": str(path),
        "readings": counted,
        "seconds": round(seconds, 3),
        "readings_per_second": round(counted / max(seconds, 1e-9)),
        "fates": fates,
        "files": {
            name: {"path": str(file.path), "rows": file.rows, "sha256": digests[name]}
            for name, file in files.files.items()
        },
    }
