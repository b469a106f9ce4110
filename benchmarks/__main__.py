"""`python -m benchmarks [NAME ...] [--json] [--full]`: figures of the parts and of the whole.

Adding one is one file and one line in `BENCHMARKS`.
"""

import argparse
import importlib
import sys

from benchmarks.frame import Row, show

# name -> module:function; a function takes the size and gives rows.
BENCHMARKS: dict[str, str] = {
    "windows": "benchmarks.windows:core",
    "edge": "benchmarks.edge:doors",
    "engine": "benchmarks.engine:throughput",
    "latency": "benchmarks.latency:latency",
    "sensors": "benchmarks.scale:sensors",
    "workers": "benchmarks.scale:workers",
    "signals": "benchmarks.signals:tick",
    "recovery": "benchmarks.recovery:after_a_kill",
    "analyse": "benchmarks.analysis:rate",
    "replay": "benchmarks.parquet:replay",
    "forecasts": "benchmarks.forecasts:accuracy",
    "anomalies": "benchmarks.anomalies:events",
}


# Not among all of them: these need another environment (`make bench-peers`).
BY_NAME = {"peers": "benchmarks.peers:peers"}


def main() -> None:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS | BY_NAME))
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--full", action="store_true", help="larger inputs, more runs")
    args = parser.parse_args()
    known = BENCHMARKS | BY_NAME
    unknown = set(args.names) - set(known)
    if unknown:
        parser.error(f"{sorted(unknown)} not among {sorted(known)}")
    rows: list[Row] = []
    for name in args.names or BENCHMARKS:
        module, _, function = known[name].partition(":")
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += getattr(importlib.import_module(module), function)("full" if args.full else "small")
    show(rows, args.json)


if __name__ == "__main__":
    main()
