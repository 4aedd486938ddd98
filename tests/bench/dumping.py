"""One backup of a replayed server: `python -m tests.bench.dumping GIGABYTES COLLECTIONS DOCUMENTS` prints JSON."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tasks.database.connection import open_database
from tasks.database.dump import dump
from tests.bench.replay import DATABASE


def main(gigabytes: str, collections: str, documents: Path) -> None:
    """Measure and print; the archive is made beside `documents`, and removed."""
    command = [sys.executable, "-m", "tests.bench.replay", gigabytes, collections, str(documents)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port, size = map(int, server.stdout.readline().split())
            start, busy = time.perf_counter(), time.process_time()
            with open_database(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
                evidence = dump(client, DATABASE, documents.parent, apinizer_version="bench")
            seconds, busy = time.perf_counter() - start, time.process_time() - busy
        finally:
            server.kill()
    if evidence.manifest.bytes != size:
        raise SystemExit(f"{evidence.manifest.bytes} bytes were read, {size} were there")
    evidence.archive.unlink()
    evidence.manifest_file.unlink()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures = {
        "speed": size / seconds,
        "ratio": evidence.manifest.size / size,
        "memory": memory,
        "busy": busy / seconds,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
