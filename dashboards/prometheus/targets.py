"""Prometheus' file-based discovery: every living process of a data folder is a target."""

import json
from pathlib import Path

from citybrain.process import living

FILE = "targets.json"


def targets(data: Path) -> list[dict[str, object]]:
    """What `file_sd_configs` reads: one group a process, labelled `process` and `role`.

    role is the process' name up to its first hyphen (`worker-1` is a `worker`).
    """
    return [
        {
            "targets": [f"127.0.0.1:{run.port}"],
            "labels": {
                "process": run.process,
                "role": run.process.partition("-")[0],
            },
        }
        for run in living(data)
    ]


def write_targets(data: Path) -> Path:
    """Write `<data>/prometheus/targets.json` as a whole, only if it changed; returns its path."""
    path = data / "prometheus" / FILE
    text = json.dumps(targets(data), indent=1)
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(FILE + ".part")
        part.write_text(text)
        part.replace(path)
    return path
