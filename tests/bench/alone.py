"""python-isal at level 1 on the documents that the server replays, with nothing else: its speed and ratio as JSON."""

import json
import time

from isal import isal_zlib

from tests.bench.replay import runs

_SLICE = 1024 * 1024
_TIMES = 15  # 1.2 GB


def main() -> None:
    """Measure and print."""
    documents = memoryview(b"".join(document for run in runs() for document in run))
    slices = [documents[at : at + _SLICE] for at in range(0, len(documents), _SLICE)]
    deflate = isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)
    made = 0
    start = time.perf_counter()
    for _ in range(_TIMES):
        for piece in slices:
            made += len(deflate.compress(piece))
    made += len(deflate.flush())
    seconds = time.perf_counter() - start
    size = len(documents) * _TIMES
    print(json.dumps({"speed": size / seconds, "ratio": made / size}))


if __name__ == "__main__":
    main()
