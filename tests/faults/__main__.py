"""`python -m tests.faults --faults N --seed S`: a real cluster through its bad days.

Three Kafka nodes, three workers, two edge agents, devices whose truth is counted apart.
Prints every fault with what it hit and how long it took until everything was up to date, and
a verdict; ends with 1 if anything was lost, counted twice or told wrongly.
"""

import argparse
import asyncio
import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path

from tests.faults.campaign import Plan, Report, run
from tests.faults.drawn import FAULTS


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=12, help="how many (12)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same (1)")
    parser.add_argument("--readings", type=int, default=0, help="go on until so many are taken")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no fault after that")
    parser.add_argument("--sensors", type=int, default=400, help="ten readings a second each (400)")
    parser.add_argument(
        "--only", default="", help="kinds of faults, with commas: " + ", ".join(FAULTS)
    )
    parser.add_argument("--folder", type=Path, help="keep logs and data there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    only = [name.strip() for name in args.only.split(",") if name.strip()] or list(FAULTS)
    if unknown := set(only) - set(FAULTS):
        parser.error(f"--only: {sorted(unknown)} not among {list(FAULTS)}")
    # That a node is away is what we do here; the client would say it many times a second.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    plan = Plan(args.faults, args.seed, args.readings, args.sensors, only, args.minutes)
    report = asyncio.run(run(plan, args.folder))
    if args.json:
        json.dump({"holds": not report.differences, **asdict(report)}, sys.stdout)
        print()
    else:
        show(report)
    sys.exit(1 if report.differences else 0)


def show(report: Report) -> None:
    """The table and the verdict."""
    print(f"{'at':>6}  {'fault':<28} {'target':<28} {'lasted':>7} {'caught up':>10}")
    for blow in report.blows:
        caught = f"{blow.behind_s:8.1f} s" if blow.behind_s >= 0 else "   never"
        print(
            f"{blow.at_s:5.0f}s  {blow.fault:<28} {blow.target:<28} {blow.lasted_s:5.1f} s {caught}"
        )
    for name, value in report.facts.items():
        print(f"{name:<32} {value:,}")
    for why, n in report.ended.items():
        print(f"ended by itself, started again: {n} x {why}")
    print(
        f"seed {report.seed}: {len(report.blows)} faults, {report.readings:,} readings,"
        f" {report.seconds:.0f} s"
    )
    for difference in report.differences:
        print(f"DIFFERENCE {difference}")
    print("holds" if not report.differences else "DOES NOT HOLD")


if __name__ == "__main__":
    main()
