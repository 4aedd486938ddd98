"""A machine that ssh reaches, and the words of the ssh command that gets there (pure).

OpenSSH's client is used as people use it: its configuration, agent, jump hosts and known_hosts files count.  What is
set here only makes sure that it never waits for an answer that nobody gives.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.domain.errors import UsageError

# A password that nobody can type is refused, a line that went dead is noticed within 15 s.  Whether an unknown host
# key is taken (StrictHostKeyChecking) stays with the user's configuration: with BatchMode "ask" refuses it.
OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "RemoteCommand=none",
    "LogLevel=INFO",
)
_WORD = re.compile(r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*")
_WITH_PORT = re.compile(r"(?:[^@]+@)?(?:\[[^\]]+\]|[^:\[\]]+):[0-9]+")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine: `name` for people, `destination` for ssh (a host, user@host or an alias of ssh's configuration).

    No destination means this machine.  What is empty or 0 is as ssh is configured.  `jump` is what `ssh -J` takes;
    unlike there, key, known hosts and configuration given here count for the jump hosts too.  With `sudo` commands
    run through `sudo -n`.
    """

    name: str
    destination: str = ""
    user: str = ""
    port: int = 0
    identity_file: str = ""
    config_file: str = ""
    known_hosts: str = ""
    jump: str = ""
    sudo: bool = False

    def __post_init__(self) -> None:
        words = [("host", self.destination), ("user", self.user), *(("jump host", hop) for hop in self.hops)]
        for what, text in words:
            if text and not _WORD.fullmatch(text):
                raise UsageError(
                    f"The {what} for ssh of {self.name} is not valid: {text!r}.",
                    observed="It is empty, begins with a dash or has a blank in it.",
                    next="Write a host name, an address, user@host, or a name of ~/.ssh/config.",
                )

    @property
    def here(self) -> bool:
        """Whether commands run on this machine, without ssh."""
        return not self.destination

    @property
    def hops(self) -> tuple[str, ...]:
        return tuple(hop.strip() for hop in self.jump.split(",")) if self.jump else ()


def ssh_command(host: Host, *flags: str) -> list[str]:
    """The ssh command up to and with the destination; `flags` come right after the program's name."""
    account = [*(["-l", host.user] if host.user else []), *(["-p", str(host.port)] if host.port else [])]
    through = ["-o", "ProxyCommand=" + _through(host, host.hops)] if host.hops else []
    return ["ssh", *flags, *_common(host), *account, *through, "--", host.destination]


def by_hand(host: Host) -> str:
    """The ssh command for a person to type, to be asked about the host key: no batch mode."""
    words = [*_files(host), *(["-J", host.jump] if host.jump else [])]
    account = [*(["-l", host.user] if host.user else []), *(["-p", str(host.port)] if host.port else [])]
    return shlex.join(["ssh", "-o", "StrictHostKeyChecking=ask", *words, *account, "--", host.destination, "true"])


def _files(host: Host) -> list[str]:
    words = ["-F", host.config_file] if host.config_file else []
    if host.identity_file:
        # Without this an agent full of other keys uses up the server's patience first.
        words += ["-i", host.identity_file, "-o", "IdentitiesOnly=yes"]
    if host.known_hosts:
        escaped = host.known_hosts.replace("\\", "\\\\").replace('"', '\\"')
        words += ["-o", f'UserKnownHostsFile="{escaped}"']
    return words


def _common(host: Host) -> list[str]:
    return [*_files(host), *(part for option in OPTIONS for part in ("-o", option))]


def _through(host: Host, hops: Sequence[str]) -> str:
    """The ProxyCommand through `hops`, the last of which reaches the host.

    `ssh -J` gives the jump host's ssh only the configuration file; without batch mode it could ask for a password.
    """
    *before, last = hops
    inner = ["-o", "ProxyCommand=" + _through(host, before).replace("%", "%%")] if before else []
    destination = f"ssh://{last}" if _WITH_PORT.fullmatch(last) else last
    return shlex.join(["ssh", *_common(host), *inner, "-W", "[%h]:%p", "--", destination])
