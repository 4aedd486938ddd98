"""Which signals interrupt: one wish is heard once, and one that is repeated is heard again."""

import signal
from types import SimpleNamespace

import pytest

from deployments.cli import interruption
from deployments.cli.interruption import Interruption


def test_signals_of_one_wish_interrupt_once_and_a_person_who_insists_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    heard = []
    with Interruption():
        for second in (0.0, 0.05, 0.6, 1.2, 1.5):
            now[0] = 100.0 + second
            try:
                signal.raise_signal(signal.SIGHUP)
            except KeyboardInterrupt:
                heard.append(second)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert heard == [0.0, 1.2]
