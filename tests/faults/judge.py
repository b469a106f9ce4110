"""What must hold at the end. Every function gives the differences that it found, in words."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from citybrain.history.read import Reader
from citybrain.ledger import Book
from tests.faults.cluster import Receiver
from tests.faults.follow import Told
from tests.faults.load import CLEAR_AT, PANE_MS, RAISE_AT, Truth

SHOWN = 5


def sum_holds(book: Book, truth: Truth) -> Iterator[str]:
    """produced = counted + duplicate + backfilled + overflowed + dead-lettered, and is what
    the devices have sent."""
    if book.unexplained or book.in_flight:
        yield f"{book.unexplained} readings unexplained, {book.in_flight} in flight: {book}"
    taken = book.counted + book.backfilled
    unsure = truth.unsure_readings
    if not truth.accepted <= taken <= truth.accepted + unsure:
        yield f"counted + backfilled is {taken}, devices were told yes for {truth.accepted}"
    if book.backfilled > truth.late_by_clock + unsure:
        yield (
            f"{book.backfilled} readings backfilled, of which only {truth.late_by_clock} came"
            " through an agent whose clock was ahead"
        )
    if book.overflowed:
        yield f"{book.overflowed} readings overflowed although agents refuse when full"
    refused = sum(truth.refused.values())
    if book.dead_lettered < refused:
        yield f"{book.dead_lettered} readings in dead letters, {refused} were refused"


def panes_hold(truth: Truth, told: Told) -> Iterator[str]:
    """Every reading that was answered yes is in the last revisions once, or in the backfill."""
    count, total = _backfilled(truth, told)
    for row in range(truth.panes):
        cells = told.windows.get((PANE_MS, truth.begin_ms + row * PANE_MS))
        if cells is not None:
            count[row] += cells.seen
            total[row] += cells.total
    wanted, sums = truth.count[: truth.panes], truth.total[: truth.panes]
    unsure = np.zeros(wanted.shape, np.bool_)
    for cell in truth.unsure:
        unsure[cell] = True
    wrong = ((count != wanted) | (total != sums)) & ~unsure
    lost = int(np.maximum(wanted - count, 0)[~unsure].sum())
    double = int(np.maximum(count - wanted, 0)[~unsure].sum())
    if wrong.any():
        yield f"panes: {int(wrong.sum())} cells differ; {lost} readings lost, {double} double"
        for row, column in np.argwhere(wrong)[:SHOWN].tolist():
            yield (
                f"  {truth.names[column]} at {truth.begin_ms + row * PANE_MS}: told"
                f" {count[row, column]} ({total[row, column]}), truth"
                f" {wanted[row, column]} ({sums[row, column]})"
            )


def longer_windows_hold(truth: Truth, told: Told) -> Iterator[str]:
    """A longer window that has closed is the sum of the panes in it."""
    back, _ = _backfilled(truth, told)
    for (length, start), cells in sorted(told.windows.items()):
        first = (start - truth.begin_ms) // PANE_MS
        rows = slice(max(0, first), max(0, first + length // PANE_MS))
        if length == PANE_MS or rows.stop > truth.panes:
            continue
        known = cells.revision >= 0
        clear = known & (back[rows].sum(axis=0) == 0)
        if truth.unsure:
            for row, column in truth.unsure:
                clear[column] &= not rows.start <= row < rows.stop
        wrong = clear & (
            (cells.seen != truth.count[rows].sum(axis=0))
            | (cells.total != truth.total[rows].sum(axis=0))
        )
        if wrong.any():
            column = int(np.argmax(wrong))
            yield (
                f"window of {length // 1000} s at {start}: {int(wrong.sum())} sensors differ, first"
                f" {truth.names[column]}: told {cells.seen[column]}, truth"
                f" {truth.count[rows, column].sum()}"
            )


def alerts_hold(truth: Truth, told: Told) -> tuple[list[str], int]:
    """Every episode that the first revisions show is one alert that has ended, and there is no
    other; how many episodes could only be seen later, because readings came late."""
    wrong: list[str] = []
    wanted = set(_over(told))
    planned = {e.sensor: e for e in truth.episodes}
    wrong += [
        f"{sensor} was over {RAISE_AT} without an episode" for sensor in wanted - set(planned)
    ]
    by_sensor: dict[str, list[str]] = {}
    for alert in told.alerts.values():
        by_sensor.setdefault(alert.place.sensor, []).append(alert.id)
        if alert.active:
            wrong.append(f"alert {alert.id} has not ended")
    wrong += [f"no alert for the episode of {sensor}" for sensor in sorted(wanted - set(by_sensor))]
    wrong += [f"alert without an episode: {by_sensor[s]}" for s in sorted(set(by_sensor) - wanted)]
    wrong += [f"{ids} for one episode" for ids in by_sensor.values() if len(ids) > 1]
    return wrong, len(set(planned) - wanted)


def effects_hold(told: Told, receiver: Receiver) -> Iterator[str]:
    """Every alert was told outside once."""
    wanted = {f"{alert.id}/raised/{alert.severity}" for alert in told.alerts.values()}
    came = receiver.came
    yield from (f"webhook {key} never came" for key in sorted(wanted - set(came)))
    yield from (f"webhook {key} for no alert" for key in sorted(set(came) - wanted))
    yield from (f"webhook {key} came {n} times" for key, n in sorted(came.items()) if n > 1)


def refusals_hold(truth: Truth, told: Told) -> Iterator[str]:
    """What devices were told no for is in dead letters of that reason."""
    letters: dict[str, int] = {}
    for letter in told.letters.values():
        letters[letter.reason] = letters.get(letter.reason, 0) + (letter.readings or 0)
    for reason, count in truth.refused.items():
        if letters.get(reason, 0) < count:
            yield f"{count} readings refused as {reason}, {letters.get(reason, 0)} in dead letters"
    yield from (
        f"{letters[reason]} readings in dead letters as {reason}, which nobody was told"
        for reason in sorted(set(letters) - set(truth.refused))
    )


_HISTORY = {
    "readings": "select sensor, epoch_ms(time) // 10000 * 10000 as pane, count(*) as n,"
    " sum(value) / count(*) as mean from readings group by all",
    "statistics": "select sensor, epoch_ms(window_start) as pane, seen as n, mean from stats"
    f" where window_ms = {PANE_MS} and seen > 0",
}


def history_holds(truth: Truth, data: Path) -> Iterator[str]:
    """On disk, too: every reading once, and last revisions with what came too late in them."""
    number = {name: i for i, name in enumerate(truth.names)}
    wanted = truth.count[: truth.panes]
    sure = np.ones(wanted.shape, np.bool_)
    for cell in truth.unsure:
        sure[cell] = False
    with np.errstate(invalid="ignore"):
        means = np.where(wanted > 0, truth.total[: truth.panes] / wanted, 0.0)
    with Reader(data / "history", tables=("readings", "stats")) as reader:
        for what, sql in _HISTORY.items():
            rows = reader.query(sql)
            at = (rows["pane"].to_numpy() - truth.begin_ms) // PANE_MS
            columns = np.array([number[name] for name in rows["sensor"].to_pylist()], np.int64)
            count, mean = np.zeros(wanted.shape, np.int64), np.zeros(wanted.shape)
            np.add.at(count, (at, columns), rows["n"].to_numpy())
            mean[at, columns] = rows["mean"].to_numpy()
            wrong = ((count != wanted) | (mean != means)) & sure
            if wrong.any():
                row, column = np.argwhere(wrong)[0].tolist()
                yield (
                    f"{what} in history: {int(wrong.sum())} cells differ, first"
                    f" {truth.names[column]} at {truth.begin_ms + row * PANE_MS}:"
                    f" {count[row, column]} with mean {mean[row, column]}, truth"
                    f" {wanted[row, column]} with mean {means[row, column]}"
                )


def _backfilled(truth: Truth, told: Told) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    count = np.zeros((truth.panes, len(truth.names)), np.int64)
    total = np.zeros((truth.panes, len(truth.names)))
    number = {name: i for i, name in enumerate(truth.names)}
    had: set[tuple[str, str, str, int]] = set()
    for item in told.backfilled:
        head = item.head
        # The topic may repeat a batch after a crash; its sequence number tells.
        key = (head.gateway, head.incarnation, head.shard, head.seq)
        if key in had:
            continue
        had.add(key)
        columns = np.array([number[name] for name in item.roster.names])[item.codes]
        rows = (item.time_ms - truth.begin_ms) // PANE_MS
        np.add.at(count, (rows, columns), 1)
        np.add.at(total, (rows, columns), item.value)
    return count, total


def _over(told: Told) -> Iterator[str]:
    """Sensors of which a first revision was over the rule's threshold."""
    assert CLEAR_AT < RAISE_AT
    for (length, _, _), entry in told.first.items():
        if length != PANE_MS:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            over = (entry.seen > 0) & (entry.sum / entry.seen >= RAISE_AT)
        yield from (entry.roster.names[code] for code in entry.codes[over].tolist())
