"""The alerting stage: the one writer of alerts, behind the one partition of the findings log.

Findings are held until every shard that is waited for has passed their time, then taken by
(at_ms, id): which shard was faster does not matter. A command takes effect where it stands in
the log, at the event time that the shards have reached by then; it has expired if the broker
received it after its `expires_ms`.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from citybrain import emergency, findings, signal_log, stats
from citybrain.alerts import Alert
from citybrain.casebook import KEEP_MS, Case, Shelf
from citybrain.changes import CURRENT_PACK, Changes
from citybrain.city import City
from citybrain.emergency import AlertSeen
from citybrain.errors import InvalidInput, Refused
from citybrain.findings import (
    Acknowledge,
    Assign,
    Command,
    CommandResult,
    DeadLetter,
    Finding,
    LeaveOutShard,
    Progress,
    SetMaintenance,
    SetThreshold,
    Shelve,
)
from citybrain.grouping import order, rule_of
from citybrain.lifecycle import Lifecycle
from citybrain.outbox import Effect, Held, Outbox
from citybrain.rules import Rule
from citybrain.stage import Out, Record
from citybrain.streams.frontier import PATIENCE_MS, Frontier, FrontierState

VERSION = 1
RESULTS = 1000
"""So many answers are remembered, for commands that are sent twice."""


class Head(msgspec.Struct, kw_only=True):
    """The small part of the state, written whole."""

    version: int = VERSION
    now_ms: int
    frontier: FrontierState
    changes: Changes
    shelves: list[Shelf]
    outbox: dict[str, Held] = {}
    counts: dict[str, int]
    pack: str = ""


class Alerting:
    """Findings and commands in, alerts and answers out. See the top of this module."""

    def __init__(self, city: City, patience_ms: int = PATIENCE_MS) -> None:
        self._city = city
        with_sensors = {sensor.shard for sensor in city.sensors.values()}
        self._frontier = Frontier(city.shards, with_sensors, patience_ms)
        self._changes = Changes()
        self._life = Lifecycle(city.rules, city.version)
        self._outbox = Outbox()
        self._held: dict[tuple[int, str, int], Finding] = {}
        self._results: dict[str, CommandResult] = {}
        self._dirty = {"held", "results"}
        self._counts = dict.fromkeys(("findings", "held_repeats", "dead_lettered", "commands"), 0)
        self._restored = False
        self._told_pack = ""

    def apply(self, record: Record) -> Sequence[Out]:
        """Take one record of the findings log."""
        outs = self._alerts(self._life.retire()) if self._restored else []
        self._restored = False
        if self._told_pack != self._city.version:
            # Another pack than the one of the last record: the log says which rules hold now.
            self._told_pack = self._city.version
            outs += self._tell_shards(list(self._city.rules.values()))
        try:
            entry = findings.decode(record.value)
            match entry:
                case Finding():
                    return outs + self._finding(entry)
                case Progress():
                    if not self._frontier.heard(entry, record.timestamp_ms):
                        known = sorted(self._frontier.state.shards)
                        raise InvalidInput("unknown_shard", f"{entry.shard!r} is not in {known}")
                    return outs + self._go_on()
                case LeaveOutShard():
                    self._frontier.leave_out(entry, record.timestamp_ms)
                    return outs + self._go_on()
                case _:
                    return outs + self._command(entry, record.timestamp_ms)
        except InvalidInput as error:
            return [*outs, self._dead_letter(record, error)]

    def tick(self, now_ms: int) -> Sequence[Out]:
        """Ask for shards to be left out that have kept the others waiting."""
        overdue = self._frontier.overdue(now_ms)
        return [Out("findings", findings.encode(record), partition=0) for record in overdue]

    def changed(self) -> Mapping[str, bytes]:
        """The head always; held findings, answers and cases where they changed."""
        book = self._life.book
        head = Head(
            now_ms=self._life.now_ms,
            frontier=self._frontier.state,
            changes=self._changes,
            shelves=list(book.shelves.values()),
            outbox=self._outbox.held,
            counts=self._counts | {"repeats": self._life.repeats},
            pack=self._told_pack,
        )
        encode = msgspec.json.encode
        blocks = {"head": encode(head)}
        for alert_id in sorted(book.touched):
            case = book.cases.get(alert_id)
            blocks[f"case/{alert_id}"] = encode(case) if case else b""
        if "held" in self._dirty:
            blocks["held"] = encode(list(self._held.values()))
        if "results" in self._dirty:
            blocks["results"] = encode(list(self._results.values()))
        book.touched.clear()
        self._dirty.clear()
        return blocks

    def restore(self, blocks: Mapping[str, bytes]) -> None:
        """Go on from saved blocks. Raises InvalidInput for a version that is not known."""
        try:
            head = msgspec.json.decode(blocks["head"], type=Head)
            held = msgspec.json.decode(blocks["held"], type=list[Finding])
            results = msgspec.json.decode(blocks["results"], type=list[CommandResult])
            cases = [
                msgspec.json.decode(block, type=Case)
                for name, block in blocks.items()
                if name.startswith("case/") and block
            ]
        except (msgspec.MsgspecError, KeyError) as error:
            raise InvalidInput("snapshot", f"alerting: {error!r}") from error
        if head.version != VERSION:
            raise InvalidInput("version", f"alerting snapshot: {head.version}, not {VERSION}")
        self._frontier.restore(head.frontier)
        self._changes = head.changes
        self._told_pack = head.pack
        self._counts |= {k: v for k, v in head.counts.items() if k in self._counts}
        self._life.repeats = head.counts.get("repeats", 0)
        self._life.now_ms = head.now_ms
        self._outbox.held = head.outbox
        self._held = {order(finding): finding for finding in held}
        self._results = {result.id: result for result in results}
        for case in sorted(cases, key=lambda case: case.alert.opened_ms):
            self._life.book.open(case)
        for shelf in head.shelves:
            self._life.book.shelve(shelf)
        self._life.book.touched.clear()
        self._dirty.clear()
        self._adjust()
        self._restored = True

    def counts(self) -> Mapping[str, int]:
        """No readings come here."""
        return {}

    def facts(self) -> dict[str, int | None]:
        """Findings taken and repeated, records refused, commands answered, since the beginning;
        the watermark is the frontier of the shards.
        """
        told: dict[str, int | None] = {"watermark_ms": self._frontier.now_ms or None}
        return told | self._counts | {"repeats": self._life.repeats}

    def _finding(self, finding: Finding) -> list[Out]:
        if rule_of(self._life.rules, finding) is None:
            raise InvalidInput(
                "unknown_rule", f"rule: {finding.rule!r} ({finding.detector}) is not in the pack"
            )
        now_ms = self._frontier.now_ms
        if finding.at_ms <= now_ms - KEEP_MS:
            raise InvalidInput("late", f"at_ms: {finding.at_ms} is a day or more before {now_ms}")
        if finding.at_ms <= now_ms:
            self._counts["findings"] += 1
            return self._alerts(self._life.take(finding.at_ms, [finding]))
        self._counts["held_repeats"] += order(finding) in self._held
        self._held.setdefault(order(finding), finding)
        self._dirty.add("held")
        return []

    def _go_on(self) -> list[Out]:
        """Take what the frontier has passed, in the order of event time."""
        now_ms = self._frontier.now_ms
        ready = sorted(key for key in self._held if key[0] <= now_ms)
        outs: list[Out] = []
        for at_ms, keys in groupby(ready, key=lambda key: key[0]):
            taken = [self._held.pop(key) for key in keys]
            self._counts["findings"] += len(taken)
            outs += self._pass(at_ms - 1)
            outs += self._alerts(self._life.take(at_ms, taken))
            self._dirty.add("held")
        outs += self._pass(now_ms)
        if self._changes.end_maintenance(now_ms):
            outs += self._tell_shards()
        return outs

    def _pass(self, to_ms: int) -> list[Out]:
        """Event time goes on to `to_ms`, and what is due on the way happens in its order."""
        outs: list[Out] = []
        while (due_ms := self._outbox.next_due_ms()) is not None and due_ms <= to_ms:
            outs += self._alerts(self._life.advance(due_ms))
            outs += map(_outward, self._outbox.due(due_ms))
        return outs + self._alerts(self._life.advance(to_ms))

    def _command(self, command: Command, received_ms: int) -> list[Out]:
        known = self._results.get(command.id)
        if known:
            return [_answer(known)]
        outs: list[Out] = []
        now_ms = self._frontier.now_ms
        self._counts["commands"] += 1
        if received_ms > command.expires_ms:
            result = CommandResult(id=command.id, outcome="expired", at_ms=now_ms)
        else:
            try:
                outs = self._carry_out(command)
                result = CommandResult(id=command.id, outcome="applied", at_ms=now_ms)
            except Refused as refusal:
                result = CommandResult(
                    id=command.id, outcome="refused", why=str(refusal), at_ms=now_ms
                )
        self._results[command.id] = result
        if len(self._results) > RESULTS:
            del self._results[next(iter(self._results))]
        self._dirty.add("results")
        return [*outs, _answer(result)]

    def _carry_out(self, command: Command) -> list[Out]:
        """Raises Refused with why not."""
        if not command.person.strip():
            raise Refused("person: is empty; a command says whose it is")
        match command:
            case Acknowledge(alert=alert, person=person, comment=comment, issued_ms=said_ms):
                return self._alerts(self._life.acknowledge(alert, person, comment, said_ms))
            case Assign(alert=alert, person=person, assignee=assignee):
                return self._alerts(self._life.assign(alert, person, assignee))
            case Shelve(alert=alert, person=person, until_ms=until_ms, reason=reason):
                return self._alerts(self._life.shelve(alert, person, until_ms, reason))
            case SetThreshold(rule=rule, field=field, value=value, person=person):
                self._changes.set_field(self._city.rules, rule, field, value)
                return [*self._tell_shards(), *self._alerts(self._life.retire(person))]
            case SetMaintenance(sensor=sensor, until_ms=until_ms):
                if sensor not in self._city.sensors:
                    raise Refused(f"sensor: {sensor!r} is not in the pack of {self._city.id}")
                self._changes.park(sensor, until_ms, self._frontier.now_ms)
        return self._tell_shards()

    def _tell_shards(self, pack_rules: Sequence[Rule] = ()) -> list[Out]:
        """What was changed as a control record in the statistics log of every shard, and as
        the current version of the pack for everybody else.
        """
        self._adjust()
        rules = stats.Rules(
            shard="",
            pack=self._life.pack,
            settings=dict(self._changes.settings),
            at_ms=self._frontier.now_ms,
            rules=list(pack_rules),
        )
        told = [
            Out(
                "stats",
                stats.encode_control(msgspec.structs.replace(rules, shard=shard)),
                partition=partition,
            )
            for shard, partition in sorted(self._city.shards.items())
        ]
        return [*told, Out("packs", stats.encode_control(rules), CURRENT_PACK)]

    def _adjust(self) -> None:
        self._life.rules = self._changes.rules(self._city.rules)
        self._life.pack = self._changes.version(self._city.version)

    def _alerts(self, records: Sequence[Alert]) -> list[Out]:
        outs: list[Out] = []
        for alert in records:
            outs.append(Out("alerts", msgspec.json.encode(alert), alert.id.encode()))
            if self._city.signals:
                notice = signal_log.encode(signal_log.Notice(alert=alert))
                outs.append(Out("detector-states", notice, alert.id.encode(), partition=0))
            if alert.cause in self._city.emergency.alerts and alert.transition != "updated":
                seen = emergency.encode(AlertSeen(alert=alert))
                outs.append(Out("emergency", seen, alert.id.encode(), 0))
            rule = self._life.rules.get(alert.rule)
            dependent = rule is not None and rule.parent != ""
            outs += map(_outward, self._outbox.take(alert, dependent, self._life.now_ms))
        # History keeps them; the table of alerts holds what somebody may still act on.
        outs += [Out("alerts", b"", alert.encode()) for alert in self._life.book.forgotten]
        self._life.book.forgotten.clear()
        return outs

    def _dead_letter(self, record: Record, error: InvalidInput) -> Out:
        self._counts["dead_lettered"] += 1
        letter = DeadLetter(
            id=f"{record.topic}/{record.partition}/{record.offset}",
            step="alerting",
            reason=error.reason,
            message=str(error),
            at_ms=record.timestamp_ms,
            original=record.value,
            retry_topic=record.topic,
            retry_partition=record.partition,
        )
        return Out("dead-letter", findings.encode(letter), letter.id.encode())


def _answer(result: CommandResult) -> Out:
    return Out("command-results", findings.encode(result), result.id.encode())


def _outward(effect: Effect) -> Out:
    return Out("outbox", msgspec.json.encode(effect), effect.key.encode())
