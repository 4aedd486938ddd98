"""Commands through OpenSSH's own client and server, with the faults that real lines have."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from tasks.domain.errors import BlockedError, StoppedError, TemporaryError, UnauthorizedError
from tasks.images.remote import Host, Remote, Sending
from tests.tasks.images.remote.served import Served, make_key, served

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest.fixture
def remote(server: Served) -> Iterator[Remote]:
    one = Remote(server.host)
    yield one
    one.close()


def command_in(error: BlockedError, begin: str) -> str:
    """The command that the error tells, without the sentence around it."""
    return begin + error.next.rpartition(begin)[2].partition("\n")[0]


ODD = ["a b", "'", '"', "$HOME", "`id`", "\\", "!x", "*", "", "-n", "ä€", "a\nb", ";true", "~", "#", "%h", "{a,b}"]


def test_every_argument_arrives_as_it_is(remote: Remote) -> None:
    ran = remote.run(["sh", "-c", 'for each; do printf "%s|" "$each"; done', "odd", *ODD])
    assert (ran.code, ran.stdout.decode()) == (0, "".join(f"{each}|" for each in ODD))


def test_exit_codes_and_both_outputs_come_back(remote: Remote) -> None:
    ran = remote.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (ran.code, ran.stdout, ran.stderr) == (7, b"out\n", "err\n")
    assert remote.run(["cat"], stdin=bytes(range(256)) * 4000).stdout == (bytes(range(256)) * 4000)[-65536:]


def test_commands_share_one_connection(server: Served) -> None:
    remote, before = Remote(server.host), server.accepted
    for _ in range(4):
        assert remote.run(["true"]).code == 0
    assert server.accepted == before + 1
    remote.close()
    assert remote.run(["true"]).code == 0
    assert server.accepted == before + 2
    remote.close()


def test_a_connection_that_was_begun_is_used(server: Served) -> None:
    remote, before = Remote(server.host), server.accepted
    remote.begin()
    assert server.accepted == before + 1
    assert remote.run(["true"]).code == 0
    assert server.accepted == before + 1
    remote.close()


def test_how_beginning_failed_is_told_to_the_first_command_and_the_next_tries_again(
    server: Served, tmp_path: Path
) -> None:
    key, known = tmp_path / "key", Path(server.host.identity_file)
    make_key(key)
    remote = Remote(replace(server.host, identity_file=str(key)))
    remote.begin()
    key.write_bytes(known.read_bytes())
    (tmp_path / "key.pub").unlink()
    with pytest.raises(UnauthorizedError, match="node-a refused the SSH login as"):
        remote.run(["true"])
    assert remote.run(["true"]).code == 0
    remote.close()


def test_connections_that_the_user_shares_already_are_used(server: Served, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n  ControlPath {tmp_path}/own\n")
    remote, before = Remote(replace(server.host, config_file=str(config))), server.accepted
    flags = ["-F", str(config), "-i", server.host.identity_file, "-p", str(server.host.port), "-o",
             f'UserKnownHostsFile="{server.host.known_hosts}"']  # fmt: skip
    with subprocess.Popen(["ssh", *flags, "-M", "-N", "127.0.0.1"], stdin=subprocess.DEVNULL) as master:
        end = time.monotonic() + 30
        while not (tmp_path / "own").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert [remote.run(["true"]).code for _ in range(3)] == [0, 0, 0]
        assert server.accepted == before + 1
        master.terminate()


def test_a_name_of_the_configuration_will_do(server: Served, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host gate\n  HostName 127.0.0.1\n  Port {server.host.port}\n  IdentityFile {server.folder}/key\n"
    )
    host = Host("gate", "gate", config_file=str(config), known_hosts=server.host.known_hosts)
    assert Remote(host).run(["echo", "hi"]).stdout == b"hi\n"


@pytest.mark.parametrize("hops", [1, 2])
def test_through_jump_hosts(server: Served, hops: int) -> None:
    before, hop = server.accepted, f"{server.host.user}@127.0.0.1:{server.host.port}"
    remote = Remote(replace(server.host, jump=",".join([hop] * hops)))
    assert remote.run(["echo", "there"]).stdout == b"there\n"
    assert server.accepted == before + 1 + hops
    remote.close()


def test_an_unknown_host_key_is_refused_with_the_command_that_accepts_it(server: Served) -> None:
    host = server.with_known("")
    before = server.accepted
    with pytest.raises(BlockedError, match="host key of node-a is not known") as caught:
        Remote(host).run(["true"])
    assert server.accepted == before
    assert Path(host.known_hosts).read_text() == ""
    accept = command_in(caught.value, "ssh-keyscan")
    subprocess.run(["sh", "-c", accept], check=True, capture_output=True, timeout=60)
    assert Remote(host).run(["true"]).code == 0


def test_a_changed_host_key_is_refused_with_the_commands_that_accept_it(server: Served, tmp_path: Path) -> None:
    host = server.with_known(f"[127.0.0.1]:{server.host.port} {make_key(tmp_path / 'other')}")
    with pytest.raises(BlockedError, match="host key of node-a has changed") as caught:
        Remote(host).run(["true"])
    for begin in ("ssh-keygen -R", "ssh-keyscan"):
        subprocess.run(["sh", "-c", command_in(caught.value, begin)], check=True, capture_output=True, timeout=60)
    assert Remote(host).run(["true"]).code == 0


def test_a_wrong_key_is_refused(server: Served, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    with pytest.raises(UnauthorizedError, match="node-a refused the SSH login as"):
        Remote(replace(server.host, identity_file=str(tmp_path / "key"))).run(["true"])


def test_nobody_listens(server: Served) -> None:
    with pytest.raises(TemporaryError, match="SSH connection to node-a failed") as caught:
        Remote(replace(server.host, port=1)).run(["true"])
    assert "refused" in caught.value.observed


def _flood(sending: Sending, server: Served) -> None:
    for number in range(400):
        # Long after the far side has begun to read: pipes and windows hold less than the first ten.
        if number == 100:
            server.cut()
        sending.write(b"x" * 1_000_000)


def test_a_line_that_is_cut_while_sending_fails_and_the_next_command_gets_a_new_one(server: Served) -> None:
    remote = Remote(server.host)
    with pytest.raises(TemporaryError, match="node-a"), remote.sending(["sh", "-c", "cat >/dev/null"]) as sending:
        _flood(sending, server)
    assert remote.run(["echo", "again"]).stdout == b"again\n"
    remote.close()


def test_a_line_that_is_cut_while_receiving_fails(server: Served) -> None:
    remote = Remote(server.host)
    with remote.receiving(["cat", "/dev/zero"]) as receiving:
        pieces = iter(receiving)
        assert next(pieces)
        server.cut()
        for _ in pieces:
            pass
        with pytest.raises(TemporaryError, match="SSH connection to node-a failed"):
            receiving.finish()
    remote.close()


def test_a_command_is_ended_when_told_to_stop(server: Served) -> None:
    stop: list[bool] = []
    remote = Remote(server.host, stop=lambda: bool(stop))
    Timer(1, stop.append, [True]).start()
    with pytest.raises(StoppedError):
        remote.run(["sleep", "98761"])
    assert gone("98761")


def test_what_runs_there_ends_with_a_killed_process_here(server: Served) -> None:
    code = (
        "from tasks.images.remote import Host, Remote\n"
        f"with Remote({server.host!r}).receiving(['sh', '-c', 'echo on; exec sleep 98762']) as one:\n"
        "    print(next(iter(one)), flush=True)\n"
        "    one.finish()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"b'on\\n'\n"
        assert not gone("98762", seconds=0)
        process.send_signal(signal.SIGKILL)
    assert gone("98762")


def gone(word: str, seconds: float = 30) -> bool:
    """Whether no process has this word as an argument, or soon has none."""
    end = time.monotonic() + seconds
    while True:
        found = [each for each in Path("/proc").glob("[0-9]*/cmdline") if word.encode() in _read(each).split(b"\0")]
        if not found or time.monotonic() > end:
            return not found
        time.sleep(0.1)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_nothing_of_a_connection_is_left(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path = Path(tempfile.mkdtemp())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    left, fresh = tmp_path / "apinizer-ssh-left", tmp_path / "apinizer-ssh-fresh"
    left.mkdir()
    fresh.mkdir()
    os.utime(left, (0, time.time() - 900))
    remote = Remote(server.host)
    assert remote.run(["true"]).code == 0
    assert not left.exists()
    fresh.rmdir()
    assert [file.name.startswith("apinizer-ssh-") for file in tmp_path.iterdir()] == [True]
    del remote
    assert list(tmp_path.iterdir()) == []
    tmp_path.rmdir()


def test_a_server_that_takes_one_session_a_connection(tmp_path: Path) -> None:
    with served(tmp_path, "MaxSessions 1\n") as strict:
        remote = Remote(strict.host)
        assert [remote.run(["echo", "hi"]).stdout for _ in range(2)] == [b"hi\n"] * 2
        remote.close()
