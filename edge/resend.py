"""The way back of what an edge agent has refused: through its front door, once it would be taken.

Only the agent knows what its devices have said, so a reading that its device has sent again
meanwhile is a duplicate there and counts once, as everywhere.
"""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from citybrain.city import City
from citybrain.clock import Clock
from citybrain.dead_letters import EDGE, nowhere
from citybrain.edge import fates, forms
from citybrain.edge.tokens import Tokens
from citybrain.edge.validate import Candidates, Tolerance, Validator
from citybrain.errors import InvalidInput, Refused
from citybrain.findings import DeadLetter
from citybrain.process import living

_PATIENCE_S = 30


class Resend:
    """Sends dead letters of step `edge` to the agents that live on a data folder."""

    def __init__(self, city: City, data: Path, clock: Clock) -> None:
        self._data = data
        self._clock = clock
        self._validator = Validator(city, Tolerance())

    async def __call__(self, letter: DeadLetter) -> None:
        """Returns when an agent has it on its disk. Raises Refused with why it cannot be taken."""
        if letter.step != EDGE or letter.gateway not in self._validator.layout.gateways:
            await nowhere(letter)
        form = self._form(letter)
        with Tokens(self._data).lent(letter.gateway, self._clock()) as token:
            said = await asyncio.to_thread(self._send, letter, form, token)
        if said is None:
            raise Refused(
                f"{letter.id}: no edge agent of gateway {letter.gateway!r} answers on"
                f" {self._data}; retry it where its agent runs"
            )
        if said.get("refused") != 0:
            why = said.get("message") or [r["message"] for r in said.get("refusals", [])[:1]]
            raise Refused(f"{letter.id}: its agent still refuses it: {why} (a changed pack is"
                          " read when an agent starts)")  # fmt: skip

    def _form(self, letter: DeadLetter) -> str:
        """How its bytes are to be sent. Raises Refused if they would be refused again."""
        layout = self._validator.layout
        form = forms.JSON if (letter.readings or 0) <= 1 else forms.NDJSON
        try:
            rows: Candidates = forms.parse(letter.original, form, layout)
        except InvalidInput as error:
            raise Refused(f"{letter.id}: cannot be read: {error}") from error
        now = self._clock()
        gateway = np.full(len(rows), layout.gateways.get(letter.gateway, -1), np.int32)
        fate, _ = self._validator.judge(rows, gateway, now)
        for i in np.flatnonzero(fate >= fates.CONFLICT).tolist():
            why = self._validator.explain(rows.row(i), int(fate[i]), letter.gateway, now)
            raise Refused(f"{letter.id}: would be refused again: {why}")
        return form

    def _send(self, letter: DeadLetter, form: str, token: str) -> dict[str, Any] | None:
        """What the gateway's agent says; None if there is none."""
        for run in living(self._data):
            if not run.process.startswith("edge-"):
                continue
            health = _read(urllib.request.Request(f"http://127.0.0.1:{run.port}/health"))
            port = (health or {}).get("facts", {}).get("http_port")
            if not port:
                continue
            said = _read(
                urllib.request.Request(
                    f"http://127.0.0.1:{port}/readings",
                    letter.original,
                    {"Authorization": f"Bearer {token}", "Content-Type": form},
                )
            )
            if said and said.get("error") != "gateway":
                return said
        return None


def _read(request: urllib.request.Request) -> dict[str, Any] | None:
    """The JSON of an answer, whatever its status; None if nobody answers in JSON."""
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return None
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError:
        return None
    return found
