"""The `citybrain` command as people and scripts call it: a process of its own."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Called:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its stdout as one JSON document."""
        return json.loads(self.out)


async def citybrain(*arguments: str) -> Called:
    """Call the command and wait for its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "citybrain", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return Called(process.returncode, out.decode(), err.decode())
