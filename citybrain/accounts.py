"""Accounts: where readings are, counted on their own at source and sink.

produced = counted + duplicate + backfilled + overflowed + dead_lettered + in_flight.
"""

import msgspec

VERSION = 1


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one party since its beginning. Compacted; key = `<party>/<shard>`.

    party: `edge/<gateway>/<incarnation>` counts produced, duplicate, conflict, invalid,
    overflowed, sent, spooled; `rollup` counts counted, duplicate, backfilled, dead_lettered,
    where duplicate are readings of batches that transport has brought twice. next_offset: the
    first record of the shard's readings log that is not in these counts, where that applies.
    `retry` counts retried: readings that have left the dead letter for the log again.
    """

    version: int = VERSION
    party: str
    shard: str
    at_ms: int
    counts: dict[str, int]
    next_offset: int = -1
