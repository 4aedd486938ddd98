"""How fast a backup is made, beside python-isal alone on the same bytes in the same run.

    python -m tests.bench [GIGABYTES] [COLLECTIONS] [ROUNDS]

Without arguments 5 GB, 1 and 4 collections, 3 rounds.  Every figure is taken in a process of its own, in
turns, and the median is told.  The server only replays (`replay.py`), so the tool is what is measured; it
shares the machine's processors with the tool, as no real server does.  Ends with 1 where an aim is missed.
"""

import json
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from statistics import median

from tests.bench.replay import DOCUMENT_SIZE, keep

MEGABYTE = 1e6
LEAST_SPEED = 0.6  # of python-isal at level 1 alone
MOST_BYTES = 1.2  # of gzip -6
MOST_MEMORY = 200  # MiB

Figures = dict[str, float]


def measured(program: str, *arguments: str) -> Figures:
    """Run `python -m tests.bench.<program>`, which prints its figures as JSON."""
    command = [sys.executable, "-m", f"tests.bench.{program}", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Figures = json.loads(done.stdout)
    return found


def main(gigabytes: float, collections: list[int], rounds: int) -> int:
    """Measure and print; 1 where an aim is missed."""
    alone: list[Figures] = []
    dumps: dict[int, list[Figures]] = {count: [] for count in collections}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-") as directory:
        file = Path(directory) / "documents"
        documents = keep(file)
        gzip6 = len(zlib.compress(documents, 6)) / len(documents)
        print(f"{gigabytes:g} GB of BSON in documents of {DOCUMENT_SIZE} bytes, {rounds} rounds; gzip -6 makes {gzip6:.3f} of {len(documents) / MEGABYTE:.0f} MB of them", flush=True)  # fmt: skip
        for number in range(rounds):
            alone.append(measured("alone", str(file)))
            for count, found in dumps.items():
                found.append(measured("dumping", str(gigabytes), str(count), str(file)))
            told = ", ".join(f"{found[-1]['speed'] / MEGABYTE:.0f} MB/s" for found in dumps.values())
            print(f"round {number + 1}: isal alone {alone[-1]['speed'] / MEGABYTE:.0f} MB/s, dump {told}", flush=True)
    return report(gzip6, alone, dumps)


def report(gzip6: float, alone: list[Figures], dumps: dict[int, list[Figures]]) -> int:
    """The table, and whether the aims are met."""
    isal = median(found["speed"] for found in alone)
    print(f"\n{'':24}{'MB/s':>8}{'x isal 1':>10}{'bytes':>8}{'x gzip -6':>11}{'peak MiB':>10}{'CPUs':>7}")
    ratio = alone[0]["ratio"]
    print(f"{'isal level 1 alone':24}{isal / MEGABYTE:8.0f}{1:10.2f}{ratio:8.3f}{ratio / gzip6:11.2f}")
    missed = 0
    for count, found in dumps.items():
        speed, ratio = median(f["speed"] for f in found), median(f["ratio"] for f in found)
        memory, busy = max(f["memory"] for f in found), median(f["busy"] for f in found)
        # Both of a pair met the same load of the machine.
        share = median(f["speed"] / a["speed"] for f, a in zip(found, alone, strict=True))
        name = f"dump, {count} collection{'s' if count > 1 else ''}"
        print(
            f"{name:24}{speed / MEGABYTE:8.0f}{share:10.2f}{ratio:8.3f}{ratio / gzip6:11.2f}{memory / 2**20:10.0f}{busy:7.2f}"
        )
        missed |= share < LEAST_SPEED or ratio > MOST_BYTES * gzip6 or memory / 2**20 > MOST_MEMORY
    print(
        f"aims: at least {LEAST_SPEED} x isal, at most {MOST_BYTES} x gzip -6, under {MOST_MEMORY} MiB: {'missed' if missed else 'met'}"
    )
    return int(missed)


if __name__ == "__main__":
    given = sys.argv[1:]
    Path("/var/tmp").mkdir(exist_ok=True)  # noqa: S108
    sys.exit(
        main(
            float(given[0]) if given else 5.0,
            [int(given[1])] if len(given) > 1 else [1, 4],
            int(given[2]) if len(given) > 2 else 3,
        )
    )
