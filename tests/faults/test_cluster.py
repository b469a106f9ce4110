"""The whole engine on three Kafka nodes through faults, against a truth of its own."""

import os

import pytest

from tests.faults.campaign import Plan, run
from tests.faults.drawn import EVERYDAY, FAULTS

pytestmark = pytest.mark.stream


async def test_five_kinds_of_faults_lose_nothing_and_double_nothing() -> None:
    report = await run(Plan(faults=5, seed=1, sensors=80, only=EVERYDAY))
    assert report.differences == []
    assert {blow.fault for blow in report.blows} == set(EVERYDAY)
    assert report.facts["alerts"] > 0
    assert report.facts["counted"] == report.readings > 0


@pytest.mark.long
async def test_a_hundred_faults_lose_nothing_and_double_nothing() -> None:
    if os.environ.get("CITYBRAIN_TEST_SIZE") != "full":
        pytest.skip("an hour; CITYBRAIN_TEST_SIZE=full runs it")
    plan = Plan(faults=100, seed=1, readings=100_000_000, sensors=4_000)
    report = await run(plan)
    assert report.differences == []
    assert {blow.fault for blow in report.blows} == set(FAULTS)
