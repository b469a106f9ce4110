"""Commands over HTTP: who is let in, what is refused, and with which words."""

import re
import stat
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from httpx import AsyncClient, Response
from typer.testing import CliRunner

from citybrain.cli.main import build
from citybrain.command_kinds import COMMAND_KINDS, CommandKind, WrongBody
from citybrain.dashboards.centre.server import Centre
from citybrain.errors import SetupError
from citybrain.findings import CommandBase, CommandResult, Place
from citybrain.people import OWNER_TOKEN, People

NOW = 1_800_000_000_000
SEEN = {"alert": "rain/city/1", "comment": "seen"}


@pytest.fixture
def token(centre: Centre) -> str:
    return centre.people.add("desk-1", "operator", NOW)


async def say(
    client: AsyncClient, kind: str, body: Any, token: str = "", **headers: str
) -> Response:
    signed = {"Authorization": f"Bearer {token}"} if token else {}
    return await client.post(f"/api/commands/{kind}", json=body, headers=signed | headers)


@pytest.mark.parametrize("token", ["", "cb_x_y", "nonsense", "cb__", "\u00e4"])
async def test_without_a_known_token_nothing_is_done(client: AsyncClient, token: str) -> None:
    headers = {"authorization": f"Bearer {token}".encode()} if token else {}
    answer = await client.post("/api/commands/acknowledge", json=SEEN, headers=headers)  # type: ignore[arg-type]  # bytes, as a client that does not care sends them
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "citybrain token" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_another_sites_page_gives_no_command_even_with_a_token(
    client: AsyncClient, token: str, headers: dict[str, str]
) -> None:
    answer = await say(client, "acknowledge", SEEN, token, **headers)
    assert answer.status_code == 403
    assert "origin" in answer.json()["error"]
    assert "access-control-allow-origin" not in answer.headers


async def test_a_name_that_resolves_to_this_machine_gives_no_command(
    client: AsyncClient, token: str
) -> None:
    answer = await say(client, "acknowledge", SEEN, token, Host="evil.example")
    assert answer.status_code == 400


async def test_a_form_of_another_site_is_no_command(client: AsyncClient, token: str) -> None:
    answer = await client.post(
        "/api/commands/acknowledge",
        content=b'{"alert": "x"}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "text/plain"},
    )
    assert answer.status_code == 415


async def test_an_operator_does_not_change_what_is_looked_for(
    client: AsyncClient, token: str
) -> None:
    body = {"rule": "noise", "field": "raise_at", "value": 1.0}
    answer = await say(client, "set-rule", body, token)
    assert answer.status_code == 403
    assert "desk-1 is operator; it takes a supervisor" in answer.json()["error"]


@pytest.mark.parametrize(
    ("kind", "body", "field", "value", "expected"),
    [
        ("acknowledge", {}, "alert", "", "not in the body"),
        ("acknowledge", {"alert": 3}, "alert", "3", "`str`"),
        ("acknowledge", {"alert": "x", "colour": "red"}, "colour", '"red"', "not a field"),
        ("acknowledge", {"alert": "x", "person": "boss"}, "person", '"boss"', "not a field"),
        ("acknowledge", {"alert": "x" * 2000}, "alert", '"xxx', "length <= 1000"),
        ("acknowledge", {"alert": "x", "id": "a b"}, "id", '"a b"', "regex"),
        ("acknowledge", [1], "body", "[1]", "`object`"),
        ("shelve", {"alert": "x", "reason": "y", "until_ms": "2h"}, "until_ms", '"2h"', "`int`"),
        ("shelve", {"alert": "x", "reason": "y", "until_ms": 1.5}, "until_ms", "1.5", "`int`"),
        ("unshelve", {"alert": "x", "until_ms": 5}, "until_ms", "5", "not a field"),
    ],
)
async def test_a_wrong_field_is_named_with_its_value_and_what_was_expected(
    client: AsyncClient, token: str, kind: str, body: Any, field: str, value: str, expected: str
) -> None:
    answer = await say(client, kind, body, token)
    assert answer.status_code == 400
    told = answer.json()
    assert (told.get("field"), told.get("value", "")[: len(value)]) == (field, value)
    assert expected in told["expected"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b"", b'{"alert": NaN}'])
async def test_what_is_no_json_is_refused_and_not_a_crash(
    client: AsyncClient, token: str, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = await client.post("/api/commands/acknowledge", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["field"] == "body"


async def test_a_huge_body_is_cut_off(client: AsyncClient, token: str) -> None:
    assert (await say(client, "assign", {"x": "y" * 70_000}, token)).status_code == 413


async def test_an_unknown_kind_is_told_which_there_are(client: AsyncClient, token: str) -> None:
    answer = await say(client, "explode", {}, token)
    assert answer.status_code == 404
    assert all(name in answer.json()["error"] for name in COMMAND_KINDS)


@pytest.mark.parametrize("wait", ["-1", "31", "x", "nan"])
async def test_a_wrong_wait_is_refused_by_name(client: AsyncClient, token: str, wait: str) -> None:
    answer = await say(client, f"acknowledge?wait_s={wait}", SEEN, token)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("wait_s")


async def test_a_broker_that_is_away_is_said_with_where_to_look_later(
    client: AsyncClient, token: str
) -> None:
    answer = await say(client, "acknowledge", SEEN | {"id": "a1"}, token)
    assert answer.status_code == 503
    assert "broker: 127.0.0.1:9" in answer.json()["error"]
    assert answer.headers["location"].startswith("/api/commands/results/a1~")
    assert "retry-after" in answer.headers


async def test_an_id_that_was_another_commands_is_refused(client: AsyncClient, token: str) -> None:
    await say(client, "acknowledge", SEEN | {"id": "a1"}, token)
    answer = await say(client, "acknowledge", {"alert": "other", "id": "a1"}, token)
    assert (answer.status_code, answer.json()["field"]) == (400, "id")


async def test_a_command_that_is_answered_already_is_not_sent_again(
    client: AsyncClient, centre: Centre, token: str
) -> None:
    kind = COMMAND_KINDS["acknowledge"]
    own, facts = kind.read(b'{"id": "a1", "alert": "x"}')
    order = centre.desk.order(kind, own, facts, "desk-1")
    for outcome, status, why in (
        ("applied", 200, ""),
        ("expired", 409, "with a new id"),
        ("refused", 409, "acknowledged already"),
    ):
        centre.desk.answers.take(
            CommandResult(id=order.id, outcome=outcome, why=why, at_ms=5)  # type: ignore[arg-type]  # three of its words
        )
        answer = await say(client, "acknowledge", {"id": "a1", "alert": "x"}, token)
        told = answer.json()
        assert (answer.status_code, told["outcome"], told["id"]) == (status, outcome, "a1")
        assert why in told["why"]
        again = await client.get(told["result"], headers={"Authorization": f"Bearer {token}"})
        assert again.json()["outcome"] == outcome
    assert (await client.get(told["result"])).status_code == 401


@pytest.mark.parametrize("kind", COMMAND_KINDS.values(), ids=lambda kind: kind.name)
def test_every_kind_can_be_said_read_and_is_the_same_command_when_said_again(
    kind: CommandKind,
) -> None:
    """The contract of the registry: a new row is tested the moment it is listed."""
    assert COMMAND_KINDS[kind.name] is kind
    assert issubclass(kind.form, CommandBase)
    with pytest.raises(WrongBody):
        kind.read(b'{"no such field": 1}')
    example: dict[Any, Any] = {str: "x", int: 5, float: 1.5, bool: True, Place: {"zone": "z"}}
    example[float | bool] = 2.5
    known = {*CommandBase.__struct_fields__, *kind.fixed}
    body = {
        f.name: example[f.type] if f.type in example else get_args(f.type)[0]
        for f in msgspec.structs.fields(kind.form)
        if f.required and f.name not in known
    }
    own, facts = kind.read(msgspec.json.encode(body | {"id": "a1"}))
    first = kind.order(own, facts, "p", 1_000, 500)
    assert (first.id, first.expires_ms) == (kind.order(own, facts, "p", 9_000, 500).id, 1_500)
    assert first.id != kind.order(own, facts, "q", 1_000, 500).id
    assert isinstance(first, kind.form)


async def test_the_description_names_every_endpoint_and_all_of_its_forms(
    client: AsyncClient,
) -> None:
    answer = await client.get("/api/openapi.json")
    told = answer.json()
    assert told["openapi"].startswith("3.1")
    for name, kind in COMMAND_KINDS.items():
        post = told["paths"][f"/api/commands/{name}"]["post"]
        assert post["security"] == [{"token": []}]
        assert kind.role in post["description"]
        assert {"200", "202", "400", "401", "403", "409", "503"} <= post["responses"].keys()
    forms = told["components"]["schemas"]
    references = set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', answer.text))
    assert {"Told", "Refusal", "Shelve", "Alert"} <= references
    assert references <= forms.keys()
    assert {"alert", "until_ms", "reason"} == set(forms["Shelve"]["required"])
    assert {"/api/alerts", "/api/links", "/api/stations", "/api/rules"} <= told["paths"].keys()


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/api/links?zone={zone}", "links"),
        ("/api/stations?zone={zone}&kind=noise_level", "stations"),
        ("/api/rules", "rules"),
    ],
)
async def test_short_answers_for_programs(
    client: AsyncClient, centre: Centre, path: str, key: str
) -> None:
    zone = next(s.zone for s in centre.city.sensors.values() if "noise_level" in s.kinds)
    found = (await client.get(path.format(zone=zone))).json()[key]
    assert found
    assert {row.get("zone", zone) for row in found} == {zone}
    assert (await client.get("/api/links?zone=nowhere")).status_code == 400
    assert (await client.get("/api/alerts/no/such/alert")).status_code == 404


def test_the_owners_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    people = People(tmp_path)
    token = people.owner_token("me", NOW)
    path = tmp_path / "secrets" / OWNER_TOKEN
    assert people.owner_token("me", NOW + 1) == token
    found = people.check(token)
    assert found is not None
    assert (found.name, found.role) == ("me", "supervisor")
    for secret in (path, path.with_name("people.json")):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert token not in path.with_name("people.json").read_text()
    path.chmod(0o644)
    people.owner_token("me", NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    people.revoke("me")
    assert people.check(token) is None
    assert people.owner_token("me", NOW) != token


def test_a_broken_file_of_tokens_is_named(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "people.json").write_text("{")
    with pytest.raises(SetupError, match=r"people\.json"):
        People(tmp_path).check("cb_a_b")


def test_tokens_are_given_listed_and_taken_back_at_the_terminal(tmp_path: Path) -> None:
    def call(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(build("token"), ["token", *words, "--data", str(tmp_path)])
        return done.exit_code, done.stdout

    code, shown = call("show")
    assert (code, shown.strip()) == (0, People(tmp_path).owner_token("x", NOW))
    code, given = call("add", "desk-1", "--role", "operator")
    person = People(tmp_path).check(given.split()[0])
    assert person is not None
    assert (person.name, person.role) == ("desk-1", "operator")
    assert call("add", "desk-2", "--role", "king")[0] != 0
    assert "desk-1" in call("list")[1]
    assert call("revoke", "desk-1") == (0, "1 token(s) taken back\n")
    assert People(tmp_path).check(given.split()[0]) is None
    assert call("revoke", "desk-1")[0] != 0
