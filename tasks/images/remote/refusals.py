"""What ssh, sudo and a missing program print, and what a person can do about it (pure).

The words are OpenSSH's (sshconnect.c, clientloop.c, misc.c of 7.4 to 9.9) and sudo's, with LC_ALL=C.
"""

import re
import shlex
from collections.abc import Mapping

from tasks.domain.errors import (
    NOTHING_CHANGED,
    BlockedError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)
from tasks.images.remote.host import Host, by_hand

SSH_FAILED = 255
_CHANGED = "REMOTE HOST IDENTIFICATION HAS CHANGED"
_OFFENDING = re.compile(r"Offending (?:\S+ )?key (?:for IP )?in (.+):(\d+)")
_REFUSED_KEY = ("Permission denied (", "Too many authentication failures", "No more authentication methods")
_CONFIGURATION = ("Bad configuration option", "Can't open user config file", "bad configuration options",
                  "Bad owner or permissions", "unsupported option", "keyword ", "Bad port", "missing argument")  # fmt: skip
_UNKNOWN_NAME = ("Could not resolve hostname", "Name or service not known")
_UNRESOLVED = re.compile(r"Could not resolve hostname (\S+):")
_REFUSED_AT = re.compile(r"^(\S+)@(\S+): Permission denied \(", re.MULTILINE)
_FOR_NOW = "Temporary failure in name resolution"
_NO_SUDO = ("a password is required", "a terminal is required", "no tty present")
_NOT_ALLOWED = ("is not in the sudoers file", "is not allowed to", "may not run sudo")
# Whoever wrote it, a shell of whatever kind, env or sudo.
_NO_PROGRAM = re.compile(r"not found|No such file or directory|Unknown command", re.IGNORECASE)
_SUDO_FINDS_NONE = re.compile(r"^sudo: \S+: command not found", re.MULTILINE)
# As shells, busybox's env and coreutils' say that there is no sudo; "sudo: ctr: command not found" is sudo's own word.
_NO_SUDO_THERE = re.compile(
    r"\bsudo\W{0,3}: (?:command )?not found|(?:command not found|Unknown command): \W?sudo\b|"
    r"\bsudo\W{0,3}: No such file or directory"
)
_SOCKET_DENIED = re.compile(r"permission denied.{0,200}\.sock|\.sock.{0,200}permission denied", re.IGNORECASE | re.DOTALL)  # fmt: skip


def of_connection(host: Host, stderr: str, effective: Mapping[str, str]) -> UpgradeError:
    """The error of an ssh that ended with 255; `effective` is what `ssh -G` prints, by keyword."""
    observed = told(stderr)
    if "Host key verification failed" in stderr or _CHANGED in stderr:
        return _host_key(host, stderr, effective)
    if any(each in stderr for each in _REFUSED_KEY):
        refused = _REFUSED_AT.search(stderr)
        jump = _jump_host(host, refused[2] if refused else "", effective)
        user = refused[1] if refused and jump else effective.get("user")
        who = f"as {user}" if user else ""
        return UnauthorizedError(
            f"{jump or host.name} refused the SSH login {who}".rstrip() + ".",
            observed=observed,
            next="Give the user and the private key that the machine knows, or load the key into the agent.",
        )
    if any(each in stderr for each in _CONFIGURATION):
        return UsageError(
            f"ssh does not accept its configuration for {host.name}.",
            observed=observed,
            next="Mend ssh's configuration, or name another with --ssh-config.",
        )
    if any(each in stderr for each in _UNKNOWN_NAME) and _FOR_NOW not in stderr:
        unresolved = _UNRESOLVED.search(stderr)
        name = unresolved[1] if unresolved else effective.get("hostname") or host.destination
        jump = _jump_host(host, name, effective)
        return NotFoundError(
            f"{jump} has no address." if jump else f"{host.name} has no address: {name} is not known.",
            observed=observed,
            next="Give the machine's address, or a name that resolves here.",
        )
    return TemporaryError(
        f"The SSH connection to {host.name} failed.",
        observed=observed or "ssh ended without a word.",
        next="See that the machine is up and reachable from here on its SSH port.",
    )


def of_command(host: Host, program: str, code: int, stderr: str) -> UpgradeError | None:
    """The error of a command that could not run at all, None where it ran and its exit code is its own affair."""
    if code == 0:
        return None
    if "sudo:" in stderr and any(each in stderr for each in _NO_SUDO):
        return _needs_password(host, program, stderr)
    if any(each in stderr for each in _NOT_ALLOWED) and code == 1:
        return ForbiddenError(
            f"sudo on {host.name} does not let the user run {program}.", observed=told(stderr), next=_sudoers(host, program)
        )  # fmt: skip
    if code in (126, 127) and _NO_SUDO_THERE.search(stderr):
        return NotFoundError(
            f"sudo was not found on {host.name}.",
            observed=told(stderr),
            next=f"Install sudo there; or log in as root, or as a user who may run {program}, without --sudo.",
        )
    if (code in (126, 127) and _NO_PROGRAM.search(stderr or "not found")) or _SUDO_FINDS_NONE.search(stderr):
        return NotFoundError(
            f"{program} was not found on {host.name}.",
            observed=told(stderr) or f"It is in no folder of PATH there (exit code {code}).",
            next=f"Install {program} there, or name the program by its full path; where only root has it in its PATH, use sudo.",
        )
    if code == 126:
        return ForbiddenError(
            f"{program} may not be run on {host.name}.", observed=told(stderr), next="Log in as root, or use sudo."
        )
    if code != 0 and _SOCKET_DENIED.search(stderr):
        return ForbiddenError(
            f"{program} on {host.name} may not use its socket.",
            observed=told(stderr),
            next="Log in as root, set sudo for this node, or give the user the right to the socket.",
        )
    return None


def told(stderr: str, lines: int = 6) -> str:
    """The last lines of what was printed, without empty ones and without ssh's banner of at signs."""
    kept = [line.rstrip() for line in stderr.splitlines() if line.strip(" @\r")]
    return "\n".join(kept[-lines:])[-2000:]


def _jump_host(host: Host, name: str, effective: Mapping[str, str]) -> str:
    """ "The jump host NAME to node-a" where that is whom ssh speaks of, and not the machine itself; else ""."""
    through = host.hops or {"proxyjump", "proxycommand"} & {key for key, value in effective.items() if value != "none"}
    own = {host.destination.rpartition("@")[2].lower(), effective.get("hostname", "").lower()}
    return f"The jump host {name} to {host.name}" if through and name and name.lower() not in own else ""


def _needs_password(host: Host, program: str, stderr: str) -> ForbiddenError:
    return ForbiddenError(
        f"sudo on {host.name} asks for a password.", observed=told(stderr, 2), next=_sudoers(host, program)
    )


def _sudoers(host: Host, program: str) -> str:
    user = host.user or host.destination.rpartition("@")[0] or "USER"
    path = program if program.startswith("/") else f"/usr/bin/{program}"
    return (
        f"Allow it there with a line in /etc/sudoers.d (visudo -f /etc/sudoers.d/apinizer-upgrade), with the path that"
        f" `command -v {program}` gives: {user} ALL=(root) NOPASSWD: {path}"
    )


def _host_key(host: Host, stderr: str, effective: Mapping[str, str]) -> UpgradeError:
    known = (effective.get("userknownhostsfile") or "~/.ssh/known_hosts").split()[0]
    if host.known_hosts:
        known = host.known_hosts
    name = effective.get("hostkeyalias") or effective.get("hostname") or host.destination
    address, port = effective.get("hostname") or host.destination, effective.get("port") or "22"
    entry = name if port == "22" or effective.get("hostkeyalias") else f"[{name}]:{port}"
    offending = _OFFENDING.search(stderr)
    file = offending[1].strip() if offending else known
    forget = f"ssh-keygen -R {shlex.quote(entry)} -f {shlex.quote(file)}"
    scan = f"ssh-keyscan -p {port} {shlex.quote(address)}"
    look = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
    # Behind a jump host nothing but ssh itself gets to the machine; and the key in question may be the jump host's.
    accept = by_hand(host) if host.hops else f"{scan} >> {shlex.quote(known)}"
    compare = f"compare the fingerprint ({scan} | ssh-keygen -lf -) with the machine's own ({look}, typed there)"
    if host.hops:
        compare = f"compare the fingerprint that ssh shows with the machine's own ({look}, typed there)"
    if _CHANGED in stderr:
        return BlockedError(
            f"The SSH host key of {host.name} has changed.",
            observed=f"{told(stderr)}\nEither the machine was set up anew, or somebody is in between.",
            safe=NOTHING_CHANGED,
            next=f"First {compare}. If it is the same: {forget}\nthen: {accept}",
        )
    return BlockedError(
        f"The SSH host key of {host.name} is not known here.",
        observed=told(stderr),
        safe=NOTHING_CHANGED,
        next=f"First {compare}. If it is the same: {accept}",
    )
