"""The real command in a process of its own, with a hand on it: `python -m tests.faults.driver RECORD DO AT COMMAND...`.

Every boundary that the run passes is a line in the file RECORD: what it is, in which task, how often it was passed.  At
the boundary AT ("" for none) it does DO: `kill` (SIGKILL), `freeze` (SIGSTOP), or `hold`: that thread waits until the
file RECORD.go is there, while somebody outside does something to the world.  A boundary that is reached is written
before anything is done there, and nothing after it, so the record's last line tells where a killed run was.

Nothing of the product is replaced: its functions are called as they are, between two looks.
"""

import faulthandler
import functools
import json
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = frozenset(
    [
        "insert",
        "update",
        "delete",
        "create",
        "createIndexes",
        "dropIndexes",
        "drop",
        "renameCollection",
        "collMod",
        "dropDatabase",
        "findAndModify",
    ]
)
_TASK = threading.local()
MIDWAY = 0.3
PROOF = "reading the archive"
"""How what a restore tells before it changes anything begins: half of that is not half a restore."""
LOCK = "lock"
"""The thread that renews it."""
OUTSIDE = "run"
"""The task of what the run does outside of any: its lock, its journal, its report."""


class Hand:
    """Writes down each boundary, and acts at one of them."""

    def __init__(self, record: Path, do: str, at: str) -> None:
        self._record, self._do, self._at = record, do, at
        self._file = os.open(record, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self._counts: Counter[str] = Counter()
        self._active: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = False

    def passes(self, kind: str, what: str, **more: Any) -> None:
        """The run is at a boundary now."""
        task = self._task()
        with self._lock:
            if self._over:  # it is being killed: nothing comes after the boundary at which it was
                threading.Event().wait()
            name = f"{task} | {kind} {what}".strip()
            self._counts[name] += 1
            name = f"{name} #{self._counts[name]}"
            line = {"at": name, "task": task, "kind": kind, "what": what, "time": time.time(), **more}
            os.write(self._file, json.dumps(line).encode() + b"\n")
            if name != self._at:
                return
            if self._do == "kill":
                self._over = True
                os.kill(os.getpid(), signal.SIGKILL)
        if self._do == "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self._do == "hold":
            self._wait_for_word()

    def begins(self, task: str) -> str:
        """This thread is in a task from now on; the one that it was in before, to be given to `ends`."""
        before: str = getattr(_TASK, "name", "")
        _TASK.name = task
        with self._lock:
            self._active[task] += 1
        return before

    def ends(self, task: str, before: str) -> None:
        _TASK.name = before
        with self._lock:
            self._active -= Counter([task])

    def _task(self) -> str:
        """The task that this thread is in; that of a thread of its own is the only one that is at work, where that is so."""
        name: str = getattr(_TASK, "name", "")
        thread = threading.current_thread()
        if name or thread is threading.main_thread() or thread.name == LOCK:
            return name or OUTSIDE
        with self._lock:
            return next(iter(self._active)) if len(self._active) == 1 else OUTSIDE

    def _wait_for_word(self) -> None:
        """Until RECORD.go is there, and the moment (seconds since 1970) that it names has come."""
        word = self._record.with_suffix(".go")
        while not word.exists():
            time.sleep(0.005)
        time.sleep(max(0.0, float(word.read_text() or 0) - time.time()))


def watch_the_cluster(hand: Hand) -> None:
    """Each request that may change something: before it is sent, and when its answer is there but not yet used."""
    from tasks.cluster.api import KubernetesApi

    once = KubernetesApi._once

    @functools.wraps(once)
    def watched(self: Any, request: Any, *rest: Any) -> Any:
        if request.reads:
            return once(self, request, *rest)
        what = f"{request.method} {short(request.path)}"
        if threading.current_thread().name == LOCK:  # a renewal: when it comes is the clock's business
            what = f"beat {what}"
        hand.passes("before", what)
        answer = once(self, request, *rest)
        hand.passes("answered", what, status=answer[0])
        return answer

    setattr(KubernetesApi, "_once", watched)  # noqa: B010 - a method in place of a method


def be_elsewhere(place: str) -> None:
    """Be a process of another machine to whoever reads who holds the lock: whether it lives cannot be seen from here."""
    from tasks.record import whereabouts

    setattr(whereabouts, "_place", lambda: place)  # noqa: B010 - a function in place of a function


def watch_the_database(hand: Hand) -> None:
    """Each command that changes something: before it is sent, and when the server has done it."""
    from pymongo import monitoring

    class Heard(monitoring.CommandListener):
        def __init__(self) -> None:
            self._names: dict[int, str] = {}

        def started(self, event: monitoring.CommandStartedEvent) -> None:
            if event.command_name in WRITES:
                target = str(event.command.get(event.command_name))
                to = str(event.command.get("to", ""))
                what = f"{event.command_name} {plain(target)}{' to ' + plain(to) if to else ''}"
                if what == "findAndModify apinizer-restore":  # the restore's own lock, renewed by the clock
                    what = f"beat {what}"
                self._names[event.request_id] = what
                hand.passes("before", what)

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
            if what := self._names.pop(event.request_id, ""):
                hand.passes("answered", what)

        def failed(self, event: monitoring.CommandFailedEvent) -> None:
            self._names.pop(event.request_id, "")

    monitoring.register(Heard())


def watch_the_files(hand: Hand) -> None:
    """A file that gets its final name, or goes: just before."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"os.rename", "os.remove"}:
            name = os.fsdecode(arguments[1] if event == "os.rename" else arguments[0])
            if ".archive" in name or ".journal" in name:
                hand.passes("before", f"{event[3:]} of {_file(name)}")

    sys.addaudithook(heard)


def watch_the_feed(hand: Hand) -> None:
    """What the run tells: how far a step is."""
    from tasks.record import feed

    def heard(event: feed.Event) -> None:
        hand.passes("says", f"{event.subject} {event.state}: {plain(event.text)}", share=event.share)
        changes = event.subject != "restore" or not event.text.startswith(PROOF)
        if changes and event.share is not None and MIDWAY <= event.share < 1:
            hand.passes("midway", "", share=event.share)
        if "migrating the database" in event.text:
            hand.passes("migrating", "")

    feed._listeners.append(heard)


def watch_the_tasks(hand: Hand) -> None:
    """Each of Prefect's tasks: when it is called, and when its work is done but not yet known to anybody."""
    from prefect import Task

    found = [
        value
        for name, module in tuple(sys.modules.items())
        if name.partition(".")[0] in {"flows", "tasks"}
        for value in tuple(vars(module).values())
        if isinstance(value, Task)
    ]
    for task in {id(one): one for one in found}.values():
        task.fn = _looked_at(task.fn, _namer(task), hand)


def _namer(task: Any) -> Callable[[dict[str, Any]], str]:
    template = task.task_run_name if isinstance(task.task_run_name, str) else task.name

    def name(arguments: dict[str, Any]) -> str:
        return plain(template.format(**arguments))

    return name


def _looked_at(act: Callable[..., Any], name: Callable[[dict[str, Any]], str], hand: Hand) -> Callable[..., Any]:
    import inspect

    signature = inspect.signature(act)

    @functools.wraps(act)
    def looked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        task = name(bound.arguments)
        before = hand.begins(task)
        try:
            hand.passes("before", "")
            result = act(*args, **kwargs)
            hand.passes("after", "")
            return result
        finally:
            hand.ends(task, before)

    return looked


def short(path: str) -> str:
    """`deployments/prod/worker` of a path in the API; every journal is called so."""
    parts = path.strip("/").split("/")
    space = parts.index("namespaces") if "namespaces" in parts else len(parts)
    namespace, rest = parts[space + 1 : space + 2], parts[space + 2 :]
    text = "/".join([*rest[:1], *namespace, *rest[1:]])
    return re.sub(r"(configmaps/[^/]+)/apinizer-upgrade[-\w.]*", r"\1/journal", text)


def plain(text: str) -> str:
    """Without figures and paths, which are others each time; versions stay."""
    text = re.sub(r"/\S+/", "", text)
    text = re.sub(r"apinizer-restore\.\w+", "apinizer-restore", text)
    versions = re.compile(r"\d{4}\.\d{2}\.\d+")
    return "".join(
        part if versions.fullmatch(part) else re.sub(r"\d+(?:[.,]\d+)*", "N", part)
        for part in re.split(r"(\b\d{4}\.\d{2}\.\d+\b)", text)
    )


def _file(name: str) -> str:
    return "".join(
        f".{part}" for part in Path(name).name.split(".") if part in {"archive", "journal", "json", "partial"}
    )


def main() -> None:
    record, do, at, *command = sys.argv[1:]
    faulthandler.register(signal.SIGUSR1)  # where its threads are, when it does not come to an end
    hand = Hand(Path(record), do, at)
    if place := os.environ.get("FAULTS_ELSEWHERE"):
        be_elsewhere(place)
    watch_the_cluster(hand)
    watch_the_database(hand)
    watch_the_files(hand)
    watch_the_feed(hand)
    from deployments.cli import running

    prepare = running.prepare

    def prepared(server: Any, load: Callable[[], object]) -> None:
        prepare(server, load)
        watch_the_tasks(hand)

    running.prepare = prepared
    sys.argv = ["apinizer-upgrade", *command]
    from deployments.cli.main import run

    run()


if __name__ == "__main__":
    main()
