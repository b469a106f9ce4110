"""The wire between the controllers at the street and the edge agent: a report up, plans down.

Only the newest report is worth sending; what a lost one said of detectors is gone, as in life.
"""

import asyncio
from collections.abc import Callable

import httpx
import msgspec
from prometheus_client import CollectorRegistry, Counter

from citybrain import log, signal_log
from citybrain.errors import JSON_ERRORS
from citybrain.signal_log import Orders, Report

ANSWER_S = 3.0
_AGAIN_S = 1.0

_log = log.get(__name__)


class Wire:
    """Sends what `put` gives it and hands over the plans that come back.

    url: of the agent's HTTP source. hand: called with what was answered.
    """

    def __init__(
        self, url: str, token: str, hand: Callable[[Orders], None], registry: CollectorRegistry
    ) -> None:
        self._url = url.rstrip("/") + "/signals"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._hand = hand
        self._report: Report | None = None
        self._news = asyncio.Event()
        self._after = 0
        self._exchanges = Counter(
            "citybrain_world_signal_exchanges", "Reports of the controllers, by fate.", ["fate"],
            registry=registry,
        )  # fmt: skip

    def put(self, report: Report) -> None:
        """Send this soon, instead of one that still waits."""
        if self._report is not None:
            self._exchanges.labels("overtaken").inc()
            refusals = [*self._report.refusals, *report.refusals][:1_000]
            report = msgspec.structs.replace(report, refusals=refusals)
        self._report = report
        self._news.set()

    async def run(self) -> None:
        """Exchange until cancelled; an agent that is away is asked again."""
        async with httpx.AsyncClient(timeout=ANSWER_S) as client:
            while True:
                await self._news.wait()
                self._news.clear()
                report, self._report = self._report, None
                if report is not None and not await self._exchange(client, report):
                    await asyncio.sleep(_AGAIN_S)

    async def _exchange(self, client: httpx.AsyncClient, report: Report) -> bool:
        fate = "answered"
        try:
            answer = await client.post(
                self._url, params={"after": self._after}, headers=self._headers,
                content=signal_log.encode(report),
            )  # fmt: skip
            answer.raise_for_status()
            orders = msgspec.json.decode(answer.content, type=Orders)
        except httpx.HTTPStatusError as error:
            fate = "refused"
            _log.warning("report refused", status=error.response.status_code,
                         answer=error.response.text[:500])  # fmt: skip
        except (httpx.HTTPError, *JSON_ERRORS):
            fate = "unanswered"
        else:
            # An agent that started anew counts from the beginning.
            self._after = orders.serial
            self._hand(orders)
        self._exchanges.labels(fate).inc()
        return fate == "answered"
