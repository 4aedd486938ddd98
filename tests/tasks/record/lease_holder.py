"""Processes that take the lock and do as they are told: the holders that tests kill, freeze and race.

This one only forks them, so that each is there at once: for each line of JSON that it reads (kubeconfig, name, seconds,
place: "" for where it really runs, hours: its clock is off by, folder: of two pipes, "orders" and "answers") it writes the
new process's id.  A process answers each order by a line: {"ok": ...} or {"error": the error's class, "text": as people
read it}.  Processes that ended are not waited for here, so their remains stay.
"""

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes import config

from tasks.cluster.api import KubernetesApi
from tasks.domain.errors import UpgradeError
from tasks.domain.journal import Owner
from tasks.record import stopping, whereabouts
from tasks.record.lease import Lease


def new_lease(api: KubernetesApi, wants: dict[str, Any]) -> Lease:
    pid = os.getpid()
    return Lease(
        api, "apinizer", owner=Owner(user="ops", host=f"host-of-{pid}", pid=pid, tool="test"), run=f"run-of-{pid}",
        doing="restore: 3 of 40 MB", name=wants["name"], seconds=wants["seconds"],
        now=lambda: datetime.now(UTC) + timedelta(hours=wants["hours"]),
    )  # fmt: skip


def obey(wants: dict[str, Any]) -> None:
    if wants["place"]:
        whereabouts._place = lambda: wants["place"]
    api = KubernetesApi(config.new_client_from_config(wants["kubeconfig"]))
    lease = new_lease(api, wants)
    folder = Path(wants["folder"])
    with (folder / "orders").open() as orders, (folder / "answers").open("w") as answers:
        for line in orders:
            order = line.strip()
            answer: object
            try:
                if order in ("take", "take at once"):
                    stopping.clear()
                    lease = new_lease(api, wants)
                    answer = lease.take(wait=order == "take")
                elif order == "release, complete":
                    answer = lease.release(complete=True)
                elif order == "asked":
                    answer = stopping.asked()
                else:
                    answer = getattr(lease, order)()
                said = {"ok": answer}
            except UpgradeError as error:
                said = {"error": type(error).__name__, "text": str(error)}
            print(json.dumps(said), file=answers, flush=True)


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                obey(json.loads(line))
            finally:
                os._exit(0)
        print(pid, flush=True)


main()
