"""What is printed and what it means, by table; ssh's command line by example."""

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.domain.errors import UsageError
from tasks.images.remote import Host
from tasks.images.remote.host import by_hand, ssh_command
from tasks.images.remote.refusals import SSH_FAILED, of_command, of_connection
from tasks.images.remote.room import parse_free

CASES = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text())
HOST = Host("node-a", "10.0.0.7", user="op", port=2222)
EFFECTIVE = {"hostname": "10.0.0.7", "port": "2222", "user": "op",
             "userknownhostsfile": "/home/op/.ssh/known_hosts /home/op/.ssh/known_hosts2"}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_refusal(case: dict[str, Any]) -> None:
    if case["code"] == SSH_FAILED:
        error = of_connection(replace(HOST, jump=case.get("jump", "")), case["stderr"], EFFECTIVE)
    else:
        error = of_command(HOST, "ctr", case["code"], case["stderr"])
    assert (type(error).__name__ if error else "") == case["error"]
    for words in case.get("says", []):
        assert words in str(error)
    assert "@@@" not in str(error)


def test_behind_a_jump_host_ssh_itself_is_to_ask() -> None:
    error = of_connection(replace(HOST, jump="gate"), "Host key verification failed.", EFFECTIVE)
    assert "ssh -o StrictHostKeyChecking=ask -J gate -l op -p 2222 -- 10.0.0.7 true" in error.next
    assert "keyscan" not in error.next


def test_ssh_never_asks_and_takes_no_word_for_an_option() -> None:
    words = ssh_command(replace(HOST, identity_file="-k", config_file="-c"), "-T")
    assert words[-2:] == ["--", "10.0.0.7"]
    assert "BatchMode=yes" in words
    assert not [word for word in words if "StrictHostKeyChecking" in word]
    for wrong in ("-oProxyCommand=x", "a b", "a\nb"):
        for given in (
            {"destination": wrong},
            {"destination": "a", "user": wrong},
            {"destination": "a", "jump": f"b,{wrong}"},
        ):
            with pytest.raises(UsageError, match="for ssh of node-b is not valid"):
                Host("node-b", **given)


def test_options_reach_ssh_as_they_are_meant(tmp_path: Path) -> None:
    known = tmp_path / 'a "b" c'
    host = replace(HOST, known_hosts=str(known), config_file="/dev/null", jump="u@gate:2201,inner")
    told = subprocess.run(ssh_command(host, "-G"), capture_output=True, text=True, check=True).stdout.splitlines()
    assert f"userknownhostsfile {known}" in told
    assert "user op" in told
    assert "port 2222" in told
    proxy = next(line for line in told if line.startswith("proxycommand"))
    assert proxy.endswith("-W '[%h]:%p' -- inner")
    assert "ssh://u@gate:2201" in proxy
    assert "[%%h]:%%p" in proxy
    assert by_hand(host).endswith("-- 10.0.0.7 true")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 264212084 33511908 72879004 32% /\n", 72879004),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\n//srv/a share 100 90 10 90% /mnt/a b\n", 10),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\noverlay 100 120 -20 120% /\n", 0),
        ("df: /none: No such file or directory\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_room(text: str, expected: int | None) -> None:
    assert parse_free(text) == (None if expected is None else expected * 1024)
