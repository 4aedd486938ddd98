"""Why a tool failed, from its exit code and its lines, in this project's errors.

No line is passed on where it could hold a secret: causes are told in words of this project's own, and a line
that no cause is known for is shown only when no address and no password is in it.

Exit codes: 0 and 1 (3 for bad options, 4 for a signal in tools before release 100; mongo-tools,
common/util/exit_codes.go), 126 and 127 of the shell, 128 and the signal's number, 255 of ssh.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.database.tools.told import Failure, parse, without_time
from tasks.domain.errors import (
    BlockedError,
    DamagedArchiveError,
    ForbiddenError,
    TemporaryError,
    UnauthorizedError,
    UpgradeError,
    UsageError,
)

NO_PLACE = 97
"""The exit code of the wrapper's own: no temporary directory could be made."""
_NOT_EXECUTABLE, _NOT_FOUND, _BY_SIGNAL, _SSH = 126, 127, 128, 255
_URI = re.compile(r"mongodb(?:\+srv)?://\S*", re.IGNORECASE)
_QUOTED = re.compile(r"`[^`]*`")
_CHATTER = re.compile(r"(?:writing|done dumping|reading|restoring|finished restoring|preparing|\[[#.]+\]|index:) ?")
_LONGEST_LINE = 300
_SHORTEST_SECRET = 4

_Cause = tuple[str, type[UpgradeError], str, str]

_DATABASE: tuple[_Cause, ...] = (
    (r"unknown option .?config", UsageError, "It is older than release 100.3 and has no --config",
     "Install a newer release of the MongoDB Database Tools, or use --engine native."),
    (r"AuthenticationFailed|Authentication failed|unable to authenticate|SASL authentication|auth error",
     UnauthorizedError, "The server refused the login",
     "Check user, password and authSource (usually admin) of the database connection."),
    (r"requires authentication", UnauthorizedError, "The server wants a login",
     "Write user and password into the database's URI."),
    (r"\(Unauthorized\)|not authorized", ForbiddenError, "The user may not do this",
     "Give the user the role `backup` (for a restore `restore`), or readWrite on the database, and try again."),
    (r"no space left on device|OutOfDiskSpace|disk quota exceeded|file too large", BlockedError,
     "A disk is full", "Free some space on the database's machine, and on the one that keeps the backups."),
    (r"oplog overflow", TemporaryError, "The oplog rolled over before it was copied",
     "Try again when less is written, or have the oplog enlarged."),
    (r"incomplete read|connection reset|unexpectedly closed|closed by the remote|socket was", TemporaryError,
     "The connection was lost", "Check that the server still runs; then try again."),
    (r"appear to be a mongodump archive|gzip: invalid|magic number|corrupt|unexpected EOF|demultiplexing archive|checksum",
     DamagedArchiveError, "The archive does not read", "Have it verified; take another backup."),
    (r"x509:|tls: |certificate (?:signed|has|is|verif)", TemporaryError, "The TLS handshake failed",
     "Check the certificates that the URI names."),
    (r"NotWritablePrimary|NotPrimary|PrimarySteppedDown|InterruptedDueToReplStateChange|InterruptedAtShutdown|NotMaster",
     TemporaryError, "The server is not the primary any more", "Try again when there is a primary."),
    (r"node is recovering|not (?:the )?(?:primary|master)", TemporaryError,
     "The server is not the primary any more", "Try again when there is a primary."),
    (r"no such host|server misbehaving", TemporaryError, "The host name is not known",
     "Check the host in the database's URI and the DNS."),
    (r"connection refused", TemporaryError, "The connection was refused: nothing listens there",
     "Check that the server runs, and where; then try again."),
    (r"no reachable servers|server selection|i/o timeout|deadline exceeded|no route to host|network is unreachable",
     TemporaryError, "It did not answer in time",
     "Check that the server runs, that it has a primary, and that it can be reached; then try again."),
    (r"broken pipe|: EOF|\bEOF$", TemporaryError, "The connection was lost",
     "Check that the server still runs; then try again."),
    (r"E11000|duplicate key", UpgradeError, "A document met another with the same key",
     "See that nobody else writes to the database, and restore again."),
    (r"parsing command line options|illegal argument|unknown (?:option|flag)|bad option|error parsing uri|invalid URI",
     UsageError, "It does not take these options",
     "Install a newer release of the MongoDB Database Tools, or use --engine native."),
)  # fmt: skip
"""In this order: a pattern of the tools' own words, the error, its cause, what to do."""

_CONNECTION: tuple[_Cause, ...] = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed", BlockedError,
     "Its host key is not the one that is known",
     "Ask its administrator whether the key was changed; if so: ssh-keygen -R {host}; then: ssh {destination} true"),
    (r"Host key verification failed|authenticity of host", UsageError, "Its host key is not known here",
     "Compare and accept the key once: ssh {destination} true"),
    (r"Permission denied|Too many authentication failures|no more authentication methods", UnauthorizedError,
     "It refused the login", "Make this work without a question: ssh -o BatchMode=yes {destination} true"),
    (r"Could not resolve hostname|Name or service not known", TemporaryError, "Its name is not known",
     "Check the name: ssh {destination} true"),
    (r"Connection refused", TemporaryError, "It refused the connection: no SSH server listens there",
     "Check the machine, and: ssh {destination} true"),
    (r"timed out|No route to host|unreachable|not responding", TemporaryError, "It did not answer",
     "Check the machine and the network, and: ssh {destination} true"),
    (r"[Cc]onnection (?:reset|closed)|closed by remote|Broken pipe|kex_exchange", TemporaryError,
     "The connection was lost", "Check the machine, and: ssh {destination} true"),
    (r"Bad configuration option|terminating, \d+ bad configuration", UsageError,
     "The configuration of ssh is wrong", "Mend ~/.ssh/config: ssh {destination} true"),
    (r"(?:UNPROTECTED PRIVATE KEY|bad permissions)", UsageError, "A private key may be read by others",
     "Give the key file the mode 0600, and: ssh {destination} true"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tool ended: its program's name, exit code and last lines, where it ran, and what must not be shown."""

    program: str
    code: int
    lines: Sequence[str]
    hosts: str
    ssh: str = ""
    secrets: Sequence[str] = ()

    @property
    def where(self) -> str:
        """` on MACHINE` for messages, empty for this one."""
        return f" on {self.ssh}" if self.ssh else ""


def explain(ended: Ended, *, safe: str) -> UpgradeError:
    """The error for a tool that failed; `safe` says what is safe now."""
    if ended.ssh and ended.code == _SSH:
        return _ssh(ended, safe)
    if ended.code == _NOT_FOUND:
        return UsageError(
            f"{ended.program} is not installed{ended.where}.",
            observed="The shell did not find it.",
            safe=safe,
            next="Install the MongoDB Database Tools, or use --engine native.",
        )
    if ended.code in {_NOT_EXECUTABLE, NO_PLACE}:
        what = "may not be run" if ended.code == _NOT_EXECUTABLE else "has no temporary directory to start in"
        return UsageError(
            f"{ended.program} {what}{ended.where}.", observed=_shown(ended), safe=safe, next="Look at that machine."
        )
    text = _reasons(ended.lines)
    # A tool that was ended says so after whatever else went wrong because of it.
    if ended.code > _BY_SIGNAL or re.search(r"signal '\w+' received|received termination signal", text):
        return TemporaryError(
            f"{ended.program}{ended.where} was ended from outside.",
            observed=f"Exit code {ended.code}.",
            safe=safe,
            next="See who stopped it (an administrator, or the system for want of memory), and try again.",
        )
    for pattern, kind, cause, next_ in _DATABASE:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(
                f"{ended.program}{ended.where} failed at the database {ended.hosts}.",
                observed=f"{cause}. Exit code {ended.code}.",
                safe=safe,
                next=next_,
            )
    return UpgradeError(
        f"{ended.program}{ended.where} failed at the database {ended.hosts}.",
        observed=f"Exit code {ended.code}. {_shown(ended)}".strip(),
        safe=safe,
        next="Look at the database server's log for this moment, or use --engine native.",
    )


def unfinished(ended: Ended, documents: int, *, safe: str) -> UpgradeError:
    """mongorestore says that `documents` failed, which it does with exit code 0 too."""
    return UpgradeError(
        f"mongorestore{ended.where} could not put every document back.",
        observed=f"{documents} documents failed. {_shown(ended)}".strip(),
        safe=safe,
        next="Restore again with --engine native, which tells the documents and keeps each collection whole.",
    )


def _reasons(lines: Sequence[str]) -> str:
    """The lines that tell a failure, without the names of collections, which may be any words."""
    failures = [line for line in lines if isinstance(parse(line), Failure)]
    if not failures:
        failures = [line for line in lines if not _CHATTER.match(without_time(line))]
    signals = [line for line in lines if "signal '" in line]
    return "\n".join(_QUOTED.sub("", without_time(line)) for line in [*signals, *failures])


def _ssh(ended: Ended, safe: str) -> UpgradeError:
    text = "\n".join(ended.lines)
    names = {"destination": ended.ssh, "host": host_of(ended.ssh)}
    for pattern, kind, cause, next_ in _CONNECTION:
        if re.search(pattern, text):
            return kind(
                f"{ended.ssh} cannot be reached over SSH.",
                observed=f"{cause}.",
                safe=safe,
                next=next_.format_map(names),
            )
    return TemporaryError(
        f"{ended.ssh} cannot be reached over SSH.",
        observed=_shown(ended) or "ssh gave no reason.",
        safe=safe,
        next=f"Try by hand: ssh {ended.ssh} true",
    )


def host_of(destination: str) -> str:
    """The host in `user@host`, `ssh://user@host:port` or an alias, as `ssh-keygen -R` takes it."""
    rest = destination.removeprefix("ssh://").rpartition("@")[2]
    host, colon, port = rest.rpartition(":")
    if destination.startswith("ssh://") and colon and port.isdecimal():
        return f"[{host.strip('[]')}]:{port}"
    return rest


def _shown(ended: Ended) -> str:
    """The last line that may be shown, shortened; empty where none may."""
    for line in reversed(ended.lines):
        text = _URI.sub("(address)", without_time(line))
        if not text or any(len(secret) < _SHORTEST_SECRET or secret in text for secret in ended.secrets):
            continue
        return f"It said: {text[:_LONGEST_LINE]}"
    return ""
