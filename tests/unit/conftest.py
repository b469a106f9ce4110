"""What several unit tests share: a centre whose broker is away."""

from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient
from prometheus_client import CollectorRegistry

from citybrain import pack
from citybrain.commands import Answers
from citybrain.dashboards.centre.alert_view import AlertView
from citybrain.dashboards.centre.desk import Desk
from citybrain.dashboards.centre.metrics import CentreMetrics
from citybrain.dashboards.centre.ring import Ring
from citybrain.dashboards.centre.series import History
from citybrain.dashboards.centre.server import Centre, application
from citybrain.dashboards.centre.state import CityState
from citybrain.kafka import KafkaSettings
from citybrain.people import People
from citybrain.process import Health

CITY = pack.load("adlershof")
NOW = 1_800_000_000_000


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(
        city=CITY,
        state=CityState(CITY),
        ring=Ring("boot"),
        alerts=AlertView(tmp_path / "alerts.sqlite"),
        history=History(tmp_path / "history"),
        metrics=CentreMetrics(CollectorRegistry()),
        clock=lambda: NOW,
        health=lambda: Health(ok=False, waiting="broker"),
        desk=Desk(KafkaSettings("127.0.0.1:9"), CITY.id, Answers(), lambda: NOW),
        people=People(tmp_path),
    )


@pytest.fixture
def client(centre: Centre) -> AsyncClient:
    transport = ASGITransport(application(centre))
    return AsyncClient(transport=transport, base_url="http://127.0.0.1:8600")
