"""A Docker engine through the command `docker`, here or on a machine that ssh reaches."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from tasks.domain.errors import NotFoundError, TemporaryError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.engine import failures
from tasks.images.engine.answers import EngineFacts, Known, engine_facts, known_image
from tasks.images.model import JsonObject, Platform
from tasks.images.remote import Ran, Remote, Sending
from tasks.images.remote.room import parse_free
from tasks.images.saved.writer import familiar

# All that a look wants in one connection: the engine, its disk, its images.  "$@" is docker, with sudo where needed.
# An image that is removed meanwhile makes the last command fail, and is none.
_LOOK = (
    "\"$@\" info --format '{{json .}}' || exit; "
    'df -Pk -- "$("$@" info --format "{{.DockerRootDir}}")" 2>/dev/null | tail -n 1; '
    '"$@" image ls -q --no-trunc | sort -u | xargs -r "$@" image inspect --format "{{json .}}"; true'
)
# manifest.json says which config an image has, where its Id is another digest.
_CONFIG = '"$@" | tar -xOf - manifest.json'
# Docker 20.10 tells some failures of a load on standard output, and ends with 0: all that it says is one account.
_LOAD = 'exec "$@" >&2'
_SECONDS = 300.0


class CommandEngine:
    """The engine that `docker` reaches on a machine: `remote`; `address` is docker's -H where it is not the usual one."""

    def __init__(self, remote: Remote, *, tool: str = "docker", address: str = "") -> None:
        self._remote = remote
        self._docker = [tool, *(["-H", address] if address else [])]

    @property
    def _words(self) -> list[str]:
        """`docker` as a script is to run it: sudo may know only docker, not the shell."""
        return [*(["sudo", "-n", "--"] if self._remote.host.sudo else []), *self._docker]

    @property
    def where(self) -> str:
        return f"Docker engine of {self._remote.host.name}"

    def facts(self) -> EngineFacts:
        ran = self._run([*self._docker, "info", "--format", "{{json .}}"])
        return self._facts(ran.stdout)

    def look(self) -> tuple[EngineFacts, int | None, tuple[Known, ...]]:
        """The engine, the room in bytes on the disk of its data, and all images that have a name."""
        ran = self._run(["sh", "-c", _LOOK, self._docker[0], *self._words], sudo=False)
        lines = ran.stdout.splitlines()
        facts = self._facts(lines[0] if lines else b"")
        room = [line for line in lines[1:] if not line.startswith(b"{")]
        images = [known_image(json.loads(line)) for line in lines[1:] if line.startswith(b"{")]
        free = parse_free("\n" + room[0].decode(errors="replace")) if room else None
        return facts, free, tuple(images)

    def known(self, names: Sequence[str]) -> tuple[Known, ...]:
        if not names:
            return ()
        command = [*self._docker, "image", "inspect", "--format", "{{json .}}", *dict.fromkeys(names)]
        ran = self._remote.run(command, timeout=_SECONDS)
        if ran.code and not _only_absent(ran.stderr):
            raise self._wrong(ran)
        return tuple(known_image(json.loads(line)) for line in ran.stdout.splitlines() if line.startswith(b"{"))

    def history(self, name: str) -> list[JsonObject]:
        """Sizes in bytes only: `docker history` has its own form."""
        command = [*self._docker, "history", "--human=false", "--no-trunc", "--format", "{{.Size}}", name]
        steps: list[JsonObject] = []
        for line in self._run(command).stdout.splitlines():
            with suppress(ValueError):
                steps.append({"Size": int(line)})
        return steps

    def tags(self, repository: str) -> tuple[str, ...]:
        command = [*self._docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", familiar(repository)]
        names = self._run(command).stdout.decode(errors="replace").split()
        references = [reference for name in names if (reference := ImageReference.find(name))]
        return tuple(sorted(one.tag for one in references if one.tag))

    def save(self, names: Sequence[str]) -> AbstractContextManager[Iterator[bytes]]:
        return self._saved(names)

    def pull(self, name: str, platform: Platform | None) -> None:
        asked = ["--platform", str(platform)] if platform else []
        ran = self._remote.run([*self._docker, "pull", "--quiet", *asked, name], timeout=6 * 3600)
        if ran.code:
            raise failures.of_pull(self.where, name, ran.stderr.strip())

    def load(self) -> Sending:
        """`docker load`, to be fed with an archive; it raises what its failure means."""
        command = ["sh", "-c", _LOAD, self._docker[0], *self._words, "load"]
        return self._remote.sending(command, judge=self._load_failed, sudo=False)

    def tag(self, id: str, name: str) -> None:  # noqa: A002 -- it is called so.
        """`docker tag`: give the image one more name."""
        self._run([*self._docker, "tag", id, name])

    def config(self, name: str) -> str:
        """The config digest of an image whose Id is another digest: costs the machine one reading of it from its disk."""
        ran = self._run(["sh", "-c", _CONFIG, self._docker[0], *self._words, "save", name], sudo=False)
        config = str(json.loads(ran.stdout)[0]["Config"])
        return "sha256:" + config.rpartition("/")[2].removesuffix(".json")

    @contextmanager
    def _saved(self, names: Sequence[str]) -> Iterator[Iterator[bytes]]:
        with self._remote.receiving([*self._docker, "save", *names], judge=self._save_failed) as receiving:

            def chunks() -> Iterator[bytes]:
                yield from receiving
                receiving.finish()

            yield chunks()

    def _run(self, argv: Sequence[str], *, sudo: bool | None = None) -> Ran:
        ran = self._remote.run(argv, timeout=_SECONDS, sudo=sudo)
        if ran.code:
            raise self._wrong(ran)
        return ran

    def _facts(self, line: bytes) -> EngineFacts:
        try:
            told = json.loads(line)
        except ValueError:
            told = {}
        # The command ends with 0 in old versions although no engine answered.
        errors = told.get("ServerErrors")
        if errors:
            raise failures.away(self.where, "; ".join(str(each) for each in errors))
        facts = engine_facts(told)
        if not facts.version:
            raise TemporaryError(
                f"{self.where} did not say what it is.",
                observed=line[:300].decode(errors="replace"),
                next="Look at `docker info` there; podman's command is not Docker's.",
            )
        return facts

    def _wrong(self, ran: Ran) -> UpgradeError:
        said = ran.stderr.strip()[-1000:] or f"exit code {ran.code}"
        if "No such image" in said or "No such object" in said:
            return NotFoundError(
                f"{self.where} does not have the image.", observed=said, next="Check the image's name and the version."
            )
        return failures.away(self.where, said)

    def _save_failed(self, ran: Ran) -> UpgradeError | None:
        return failures.of_save(self.where, ran.stderr.strip()[-1000:]) if ran.code else None

    def _load_failed(self, ran: Ran) -> UpgradeError | None:
        said = ran.stderr.strip()
        return failures.of_load(self.where, said[-1000:]) if ran.code or failures.load_refused(said) else None


def _only_absent(stderr: str) -> bool:
    lines = [line for line in stderr.splitlines() if line.strip()]
    return bool(lines) and all("no such image" in line.lower() or "no such object" in line.lower() for line in lines)
