"""A gauge belongs to the run that it was made in, from whatever thread it is moved."""

import threading
from contextvars import ContextVar
from uuid import UUID

import pytest

from tasks.record import artifacts

RUN: ContextVar[str] = ContextVar("run", default="none")


def test_a_gauge_that_a_thread_of_the_step_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []

    def create(*_: object, **__: object) -> UUID:
        seen.append(("made in", RUN.get()))
        return UUID(int=1)

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda *_, **__: seen.append(("moved in", RUN.get())))
    artifacts.begin()
    token = RUN.set("the run")
    try:
        gauge = artifacts.Gauge("images on node-a", "Images on node-a")
    finally:
        RUN.reset(token)
    thread = threading.Thread(target=gauge.show, args=(1.0, "42 MB"))
    thread.start()
    thread.join()
    assert artifacts.flush(10)
    assert seen == [("made in", "the run"), ("moved in", "the run")]
