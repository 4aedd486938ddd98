"""A Docker engine through its HTTP API, by the docker SDK: a unix socket here, or TCP with TLS."""

import errno
import json
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from tasks.domain.errors import NotFoundError, StoppedError, TemporaryError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.engine import failures
from tasks.images.engine.address import Address, not_valid
from tasks.images.engine.ahead import Ahead
from tasks.images.engine.answers import EngineFacts, Known, engine_facts, known_image
from tasks.images.model import JsonObject, Platform
from tasks.images.saved.writer import familiar

if TYPE_CHECKING:
    import docker
    import requests

_CONNECT = 10.0
_ANSWER = 120.0
# An engine writes all images to its own disk before the first byte of an archive comes, and unpacks what it pulls.
_PATIENCE = 1800.0
_CHUNK = 1 << 20


class ApiEngine:
    """A Docker engine that the SDK reaches; the connection is made with the first question."""

    def __init__(self, address: Address, *, stop: Callable[[], bool] = lambda: False) -> None:
        self._address = address
        self._stop = stop
        self._client: docker.APIClient | None = None
        self._version = ""

    @property
    def where(self) -> str:
        return f"Docker engine at {self._address.shown}"

    def facts(self) -> EngineFacts:
        return engine_facts(self._json("/info"))

    def known(self, names: Sequence[str]) -> tuple[Known, ...]:
        found = []
        for name in dict.fromkeys(names):
            try:
                found.append(known_image(self._json(f"/images/{name}/json")))
            except NotFoundError:
                continue
        return tuple(found)

    def history(self, name: str) -> list[JsonObject]:
        steps: list[JsonObject] = self._json(f"/images/{name}/history")
        return steps

    def tags(self, repository: str) -> tuple[str, ...]:
        listed = self._json("/images/json", {"filters": json.dumps({"reference": [familiar(repository)]})})
        names = [known_image(each).names for each in listed]
        references = [ImageReference.parse(name) for each in names for name in each]
        return tuple(sorted(one.tag for one in references if one.tag and one.name == repository))

    def save(self, names: Sequence[str]) -> AbstractContextManager[Iterator[bytes]]:
        return Ahead(self._saved(names), self.where, self._stop)

    def pull(self, name: str, platform: Platform | None) -> None:
        whole, at, digest = name.partition("@")
        repository, _, tag = (whole, "", digest) if at else whole.rpartition(":")
        parameters = {"fromImage": repository, "tag": tag, **({"platform": str(platform)} if platform else {})}
        with self._sent("POST", "/images/create", parameters, self._login(name), _PATIENCE) as answer:
            if answer.status_code != 200:
                raise failures.of_pull(self.where, name, _message(answer))
            for line in answer.iter_lines():
                told = json.loads(line) if line else {}
                if "error" in told:
                    raise failures.of_pull(self.where, name, str(told["error"]))
                if self._stop():
                    raise StoppedError(f"Stopped while {self.where} pulled {name}.")

    @contextmanager
    def _saved(self, names: Sequence[str]) -> Iterator[Iterator[bytes]]:
        with self._sent("GET", "/images/get", {"names": list(names)}, seconds=_PATIENCE) as answer:
            if answer.status_code != 200:
                raise failures.of_save(self.where, _message(answer))
            yield self._body(answer)

    def _body(self, answer: "requests.Response") -> Iterator[bytes]:
        while chunk := answer.raw.read(_CHUNK):
            yield chunk

    def _json(self, path: str, parameters: Mapping[str, object] | None = None) -> Any:
        with self._sent("GET", path, parameters) as answer:
            if answer.status_code == 404:
                raise NotFoundError(
                    f"{self.where} does not have it.",
                    observed=_message(answer),
                    next="Check the image's name and the version.",
                )
            if answer.status_code != 200:
                said = f"{answer.status_code} {_message(answer)}"
                raise TemporaryError(
                    f"{self.where} did not answer as it should.", observed=said, next="Look at its log."
                )
            return answer.json()

    @contextmanager
    def _sent(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = _ANSWER,
    ) -> Iterator["requests.Response"]:
        import requests
        import urllib3

        client = self._connected()
        began = False
        try:
            answer = client.request(
                method,
                f"{client.base_url}/v{self._version}{path}" if self._version else f"{client.base_url}{path}",
                params=parameters,
                headers=headers,
                timeout=(_CONNECT, seconds),
                stream=True,
                # Said anew, or requests takes $REQUESTS_CA_BUNDLE instead of the engine's CA.
                verify=client.verify,
            )
            with answer:
                began = True
                yield answer
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(self.where, error, began=began) from None

    def _connected(self) -> "docker.APIClient":
        if self._client is None:
            import docker
            from docker.constants import DEFAULT_DOCKER_API_VERSION
            from docker.errors import DockerException

            try:
                self._client = docker.APIClient(
                    base_url=self._address.url, tls=self._address.tls or False, version=DEFAULT_DOCKER_API_VERSION
                )
            except OSError as error:
                raise _unreachable(self.where, error) from None
            except (DockerException, ValueError):
                # Nothing was asked of it yet: the SDK does not understand the address, and quotes it as it stands.
                raise not_valid(self._address) from None
            try:
                self._version = str(self._json("/version").get("ApiVersion", ""))
            except UpgradeError:
                self._client = None
                raise
        return self._client

    def _login(self, name: str) -> dict[str, str]:
        """What `docker login` left on this machine for the image's registry, as `docker pull` sends it along."""
        from docker import auth
        from docker.errors import DockerException

        try:
            registry, _ = auth.resolve_repository_name(name.partition("@")[0])
            found = auth.get_config_header(self._connected(), registry)
        except (DockerException, OSError, ValueError):
            found = None
        return {"X-Registry-Auth": found.decode() if isinstance(found, bytes) else found} if found else {}


def _message(answer: "requests.Response") -> str:
    text = answer.content.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500]


def _unreachable(where: str, error: BaseException, *, began: bool = False) -> UpgradeError:
    """The error behind what requests and the SDK wrap it in."""
    seen: list[BaseException] = []
    pending: list[object] = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            pending += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args]
    untrusted = next((each for each in seen if isinstance(each, ssl.SSLError)), None)
    if untrusted is not None:
        return failures.untrusted(where, str(untrusted))
    root = next((each for each in seen if isinstance(each, OSError) and each.errno), None)
    if root is not None and root.errno in (errno.EACCES, errno.EPERM):
        return failures.forbidden(where, str(root))
    said = str(root) if root is not None else f"{type(error).__name__}: {error}"
    return failures.broke_off(where, said) if began else failures.away(where, said)
