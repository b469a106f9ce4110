"""`citybrain status`: what runs, what waits, where readings are."""

from typing import TYPE_CHECKING

import typer

from citybrain.cli.connection import BrokerOption, CityOption, DataOption, JsonOption, connect

if TYPE_CHECKING:
    from datetime import tzinfo

    from citybrain.overview import Overview


def status(
    city: CityOption = None,
    data: DataOption = None,
    broker: BrokerOption = None,
    as_json: JsonOption = False,
) -> None:
    """What runs, what waits, where readings are. Exit code 0 only if all is well.

    Exit code 5 if the broker cannot be used, 6 if readings do not add up, 1 for anything else.
    """
    import asyncio
    import sys

    from citybrain.cli.output import print_json
    from citybrain.clock import wall_clock
    from citybrain.errors import BrokerError, CityBrainError, SumError
    from citybrain.overview import overview

    here = connect(city, data, broker)
    seen = asyncio.run(overview(here.kafka, here.city, here.data, wall_clock()))
    if as_json:
        print_json(seen)
    else:
        _show(seen, here.city.zone_info)
    for problem in seen.problems:
        print(f"problem: {problem}", file=sys.stderr)
    if seen.healthy:
        return
    code = CityBrainError.exit_code
    if seen.broker is None or seen.sum_holds is None:
        code = BrokerError.exit_code
    elif not seen.sum_holds:
        code = SumError.exit_code
    raise typer.Exit(code)


def _show(seen: "Overview", zone: "tzinfo") -> None:
    from citybrain.cli.output import print_table
    from citybrain.clock import age, shown

    made = " (generated data)" if seen.generated else ""
    print(f"{seen.city}{made}, {shown(seen.at_ms, zone)} {zone}: ", end="")
    print("healthy" if seen.healthy else f"{len(seen.problems)} problems")
    if seen.processes:
        print_table(
            ("process", "pid", "port", "up for", "state", "facts"),
            (
                (
                    p.process, str(p.pid), str(p.port), age(p.started_ms, seen.at_ms),
                    "ok" if p.health.ok else f"waits for {p.health.waiting}",
                    ", ".join(f"{key} {value}" for key, value in p.health.facts.items()),
                )
                for p in seen.processes
            ),
        )  # fmt: skip
    if seen.broker:
        nodes = ", ".join(seen.broker.nodes)
        print(f"broker {nodes}, answers in {seen.broker.round_trip_ms} ms\n")
    if seen.shards:
        print_table(
            ("shard", "has passed", "data age"),
            (
                (shard, shown(passed, zone), age(passed, seen.at_ms))
                for shard, passed in sorted(seen.shards.items())
            ),
        )
    if seen.lags:
        print_table(
            ("group", "topic", "records waiting"),
            ((lag.group, lag.topic, lag.records) for lag in seen.lags),
        )
    _show_readings(seen)
    if seen.alerts:
        levels = " ".join(f"{numeral} {seen.alerts.by_severity[level]}" for level, numeral in
                          enumerate(("I", "II", "III", "IV"), 1))  # fmt: skip
        print(
            f"alerts: {seen.alerts.active} active ({levels}), {seen.alerts.unacknowledged} not"
            f" acknowledged, {seen.alerts.shelved} shelved, {seen.alerts.suppressed} suppressed"
        )
    if seen.models:
        print_table(
            ("shard", "kind", "forecaster", "sensors", "model", "fitted"),
            (
                (
                    m.shard,
                    m.kind,
                    m.forecaster,
                    m.sensors,
                    m.digest[:12],
                    shown(m.fitted_ms, zone) + (", the next is overdue" if m.overdue else ""),
                )
                for m in seen.models
            ),
        )
    elif seen.broker:
        print("models: none yet; baselines and forecasts say `not enough history`")


def _show_readings(seen: "Overview") -> None:
    from citybrain.cli.output import print_table

    book = seen.readings
    if book is None:
        return
    parts = ("counted", "duplicate", "backfilled", "overflowed", "dead_lettered", "in_flight")
    rows: list[tuple[str, object]] = [("produced", book.produced)]
    rows += [(f"  {part.replace('_', ' ')}", getattr(book, part)) for part in parts]
    rows.append(("  unexplained", 0 if seen.sum_holds else book.unexplained))
    print_table(("readings", ""), rows)
