"""`python -m deployments.sandbox`: a sandbox in the foreground, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from deployments.sandbox.launch import VERSIONS, Sandbox, SandboxError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.sandbox", description="An Apinizer installation without a cluster."
    )
    parser.add_argument(
        "--version", default=VERSIONS[0], choices=VERSIONS, help="the release that is installed (default %(default)s)"
    )
    parser.add_argument("--speed", type=float, default=1.0, help="run the cluster's time so many times faster")
    parser.add_argument("--directory", type=Path, help="keep kubeconfig, logs and database here")
    given = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with Sandbox(given.version, given.speed, given.directory) as sandbox:
            print(f"Apinizer {given.version} is Ready at {sandbox.api_url}. Use it from another terminal:\n")
            print(f"  export KUBECONFIG={sandbox.kubeconfig}")
            print("  kubectl get deployments -A\n")
            print("Its database is in the secret mongo-db-credentials of every namespace. Ctrl-C ends it.", flush=True)
            while not ended.wait(3600):
                pass
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
