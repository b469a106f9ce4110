"""`python -m tests.faults.soak --hours H`: the engine at work, and what it uses meanwhile.

Every few seconds: memory and open files of every process, bytes of every topic on disk, lag.
After a warm-up all of that must be flat: the robust slope (Theil and Sen) over what is left,
times its length, may be no more than a tenth of the median, or than a stated floor. At the
end every reading must be there once. Writes a Parquet file and a plot.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.campaign import Report, catch_up, finish
from tests.faults.cluster import Cluster
from tests.faults.follow import Follower
from tests.faults.load import PER_SECOND, Load

EVERY_S = 5.0
TOLERANCE = 0.1
FLOORS = {"memory": 16 << 20, "files": 8.0, "topic": 8 << 20, "lag": 500.0, "behind": 2.0}
"""Growth below this is no growth: bytes, open files, bytes, records, seconds of event time."""
WARM_UP_S = 1_200.0
"""Until the longest windows' ring (15 min) and the agents' memory of repeats are full."""

Samples = dict[str, list[float]]


def main() -> None:
    """Parse, run, judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rate", type=int, default=20_000, help="readings a second (20000)")
    parser.add_argument("--samples", type=Path, default=Path("soak.parquet"))
    parser.add_argument("--plot", type=Path, default=Path("docs/images/soak.svg"))
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    report = Report(0)
    with tempfile.TemporaryDirectory(prefix="citybrain-soak-") as folder:
        samples = asyncio.run(_run(Path(folder), args.hours * 3600, args.rate, report))
    table = pa.table(samples)
    pq.write_table(table, args.samples, compression="zstd")
    report.differences += list(growing(samples))
    plot(samples, args.plot)
    if args.json:
        said = {"holds": not report.differences, "seconds": samples["seconds"][-1]}
        json.dump(said | report.facts | {"differences": report.differences}, sys.stdout)
        print()
    else:
        print(f"{samples['seconds'][-1]:.0f} s, {report.readings:,} readings, {len(table)} samples")
        for name, (median, growth) in judged(samples).items():
            print(f"{name:<28} median {median:>15,.0f}  growth {growth:>14,.0f}")
        for difference in report.differences:
            print(f"DIFFERENCE {difference}")
        print("flat, and every reading once" if not report.differences else "DOES NOT HOLD")
    sys.exit(1 if report.differences else 0)


async def _run(folder: Path, seconds: float, rate: int, report: Report) -> Samples:
    samples: Samples = {}
    async with Cluster(folder, rate // PER_SECOND, short_logs=True) as cluster:
        load = Load(cluster.city, 0, int(seconds / 10))
        for device in load.devices:
            cluster.introduce(device)
        follower = Follower(cluster.broker.settings, cluster.city.id, load.truth.names)
        following = asyncio.create_task(follower.run())
        loading = asyncio.create_task(load.run())
        try:
            if await catch_up(cluster, load, follower, loading, following) < 0:
                raise RuntimeError(f"the engine does not keep up with {rate} readings/s")
            begin = time.monotonic()
            while (now := time.monotonic() - begin) < seconds:
                for task in (following, loading):
                    if task.done():
                        task.result()
                taken = await asyncio.to_thread(_sample, cluster)
                taken |= {"seconds": now, "readings": load.truth.accepted}
                passed = follower.passed_ms(list(cluster.city.shards))
                taken["behind"] = time.time() - passed / 1000
                for name, value in taken.items():
                    samples.setdefault(name, []).append(float(value))
                await asyncio.sleep(EVERY_S)
            await finish(cluster, load, loading, follower, report)
        finally:
            for task in (following, loading):
                task.cancel()
            await asyncio.gather(following, loading, return_exceptions=True)
    report.readings = load.truth.accepted
    return samples


def _sample(cluster: Cluster) -> dict[str, float]:
    """One moment; names are `<what>/<of which>`."""
    found: dict[str, float] = {"lag": 0.0}
    pids = {one.name: one.pid for one in cluster.kept}
    pids |= {f"kafka-{node}": cluster.broker.pid(node) for node in (1, 2, 3)}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        found[f"memory/{name}"] = process.memory_info().rss
        found[f"files/{name}"] = process.num_fds()
    for name in cluster.workers:
        found["lag"] += _lag(cluster.folder / name / "run" / f"{name}.json")
    for path in (cluster.folder / "kafka" / "node-1" / "log").glob("citybrain.*/*.log"):
        topic = path.parent.name.rpartition("-")[0].rpartition(".")[2]
        key = f"topic/{topic}"
        try:
            found[key] = found.get(key, 0.0) + path.stat().st_size
        except FileNotFoundError:
            continue  # Kafka has just deleted this segment
    return found


def _lag(run: Path) -> float:
    port = json.loads(run.read_text())["port"]
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
    except urllib.error.HTTPError as error:
        answer = error.read()
    return float(json.loads(answer)["facts"].get("lag", 0))


def judged(samples: Mapping[str, list[float]]) -> dict[str, tuple[float, float]]:
    """(median, growth over the judged time) of every series, after the warm-up."""
    seconds = np.array(samples["seconds"])
    kept = seconds >= min(WARM_UP_S, seconds[-1] / 2)
    found = {}
    for name, values in samples.items():
        if name in ("seconds", "readings") or len(values) != len(seconds):
            continue
        x, y = seconds[kept], np.array(values)[kept]
        found[name] = (float(np.median(y)), _slope(x, y) * float(x[-1] - x[0]))
    return found


def growing(samples: Mapping[str, list[float]]) -> Iterator[str]:
    """What is not flat."""
    for name, (median, growth) in judged(samples).items():
        allowed = max(TOLERANCE * median, FLOORS[name.partition("/")[0]])
        if growth > allowed:
            yield f"{name} grew by {growth:,.0f} (median {median:,.0f}, allowed {allowed:,.0f})"


def _slope(x: "np.ndarray", y: "np.ndarray") -> float:
    """Median of the slopes between points half the time apart and more (Theil 1950, Sen 1968)."""
    step = max(1, len(x) // 300)
    x, y = x[::step], y[::step]
    i, j = np.triu_indices(len(x), k=max(1, len(x) // 2))
    return float(np.median((y[j] - y[i]) / (x[j] - x[i]))) if len(i) else 0.0


def plot(samples: Mapping[str, list[float]], path: Path) -> None:
    """Four panels over time, as SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "citybrain"
    from matplotlib import pyplot

    minutes = np.array(samples["seconds"]) / 60
    panels = (
        ("memory/", "memory, MB", 1 / (1 << 20)),
        ("files/", "open files", 1.0),
        ("topic/", "topics on one node, MB", 1 / (1 << 20)),
        ("", "lag, records; event time behind, s", 1.0),
    )
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), sharex=True)
    for axis, (prefix, title, scale) in zip(axes.flat, panels, strict=True):
        names = [n for n in sorted(samples) if prefix and n.startswith(prefix)]
        for name in names or ["lag", "behind"]:
            values = samples[name]
            label = name.removeprefix(prefix)
            axis.plot(minutes[-len(values) :], np.array(values) * scale, label=label, linewidth=1)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=6, ncols=2)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("minutes")
    rate = (samples["readings"][-1] - samples["readings"][0]) / samples["seconds"][-1]
    figure.suptitle(f"{rate:,.0f} readings a second; judged after the warm-up", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
