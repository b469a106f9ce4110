"""What the README tells its readers to type, so that a test can type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commands(section: str) -> list[str]:
    """The commands in the first block of a section, each whole, with its comment."""
    text = (ROOT / "README.md").read_text("utf-8").partition(f"## {section}\n")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block, f"{section}: no block of commands"
    found: list[str] = []
    for line in block[1].splitlines():
        # What is set in goes on with the command before.
        if line.startswith(" "):
            found[-1] += f"\n{line}"
        else:
            found.append(line)
    return found


def run(typed: str, data: Path) -> "subprocess.CompletedProcess[str]":
    """Type this in a shell that has citybrain and a city's data folder; stops at an error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-euc", typed], capture_output=True, text=True, timeout=240,
        env=os.environ | {"PATH": path, "CITYBRAIN_DATA": str(data)},
    )  # fmt: skip
