"""python-isal at level 1 on the documents of the file that is named, with nothing else: its speed and ratio as JSON."""

import json
import sys
import time
from pathlib import Path

from isal import isal_zlib

_SLICE = 1024 * 1024
_TIMES = 15  # 1.2 GB


def main(documents: memoryview) -> None:
    """Measure and print."""
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
    main(memoryview(Path(sys.argv[1]).read_bytes()))
