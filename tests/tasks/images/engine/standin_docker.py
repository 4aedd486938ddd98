"""The command `docker` of the tests' own engine (standin.py): the few words that the product uses, over the engine's HTTP.

It imports next to nothing: a test runs it a dozen times.
"""

import json
import socket
import sys

OUT = sys.stdout.buffer


class RefusedError(Exception):
    pass


def ask(method: str, path: str, body: bytes = b"") -> bytes:
    """The answer's body; raise `RefusedError` with the engine's message."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[2].removeprefix("unix://"))
    connection.sendall(f"{method} {path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head, _, content = connection.makefile("rb").read().partition(b"\r\n\r\n")
    if int(head.split()[1]) >= 300:
        raise RefusedError("Error response from daemon: " + json.loads(content)["message"])
    return content


def inspect(names: list[str]) -> None:
    absent = []
    for name in names:
        try:
            OUT.write(ask("GET", f"/images/{name}/json") + b"\n")
        except RefusedError:
            absent.append(f"Error: No such image: {name}")
    if absent:
        raise RefusedError("\n".join(absent))


def run(words: list[str]) -> None:
    match words:
        case ["info", "--format", "{{json .}}"]:
            OUT.write(ask("GET", "/info") + b"\n")
        case ["info", "--format", "{{.DockerRootDir}}"]:
            OUT.write(json.loads(ask("GET", "/info"))["DockerRootDir"].encode() + b"\n")
        case ["image", "ls", "-q", "--no-trunc"]:
            OUT.write(b"".join(each["Id"].encode() + b"\n" for each in json.loads(ask("GET", "/images/json"))))
        case ["image", "inspect", "--format", _, *names]:
            inspect(names)
        case ["image", "ls", "--format", _, repository]:
            names = [tag for each in json.loads(ask("GET", "/images/json")) for tag in each["RepoTags"]]
            OUT.write(b"".join(name.encode() + b"\n" for name in names if name.startswith(repository)))
        case ["history", *_, name]:
            steps = json.loads(ask("GET", f"/images/{name}/history"))
            OUT.write(b"".join(b"%d\n" % step["Size"] for step in steps))
        case ["save", *names]:
            OUT.write(ask("GET", "/images/get?" + "&".join(f"names={name}" for name in names)))
        case ["load"]:
            answer = json.loads(ask("POST", "/images/load", sys.stdin.buffer.read()))
            OUT.write(b"".join(b"Loaded image: %s\n" % name.encode() for name in answer["loaded"]))
        case ["tag", image, name]:
            ask("POST", f"/images/{image}/tag?repo={name}")
        case _:
            raise RefusedError(f"docker: {words} is not a docker command.")


try:
    run(sys.argv[3:])
except RefusedError as error:
    sys.exit(str(error))
except OSError:
    sys.exit(f"Cannot connect to the Docker daemon at {sys.argv[2]}. Is the docker daemon running?")
