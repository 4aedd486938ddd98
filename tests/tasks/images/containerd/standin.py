"""Stands in for `ctr` and its containerd, over a folder; run as a program, and imported by the tests.

What it prints are the columns of the real one, as recorded beside it.  Its import
follows containerd's `images/archive/importer.go`: every file is taken by the digest that is computed, index.json is
read when the archive has ended, the blobs that a manifest names must be there, and an archive that ends early leaves
no name.  What a killed import has taken in stays; what an import that fails has taken in goes, as its lease does.

The folder holds `blobs/sha256/*`, `state.json` ({labels: {digest: {}}, images: {name: [digest, type, labels]}}), and,
where the test wants them, `version`, `no-root` (the store's place is not told), `fail` (words and exit code of every
call), `slow` (seconds that an import waits at its end), `containers` (what `containers ls` prints), `busy` (a name
that `images rm` does not let go).
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
UNCOMPRESSED = "containerd.io/uncompressed"


def _told(labels: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items()) or "-"


def human(size: int) -> str:
    """go-units' HumanSize: four digits, decimal units."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB"):  # noqa: B007
        if value < 1000:
            break
        value /= 1000
    return f"{value:.4g}{unit}"


class Store:
    """A containerd's content and image store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.blobs = folder, folder / "io.containerd.content.v1.content" / "blobs" / "sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        if not (folder / "state.json").exists():
            self.save({"labels": {}, "images": {}})

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Keep the state, and write what `content ls` and `images ls` print of it."""
        (self.folder / "state.json").write_text(json.dumps(state))
        content = "DIGEST\tSIZE\tAGE\tLABELS\n"
        for digest, labels in state["labels"].items():
            size = human((self.blobs / digest[7:]).stat().st_size)
            content += f"{digest}\t{size}\t2 seconds\t{_told(labels)}\n"
        (self.folder / "content").write_text(content)
        images = "REF TYPE DIGEST SIZE PLATFORMS LABELS \n"
        for name, (digest, media_type, labels) in state["images"].items():
            images += f"{name} {media_type} {digest} 133.2 MiB linux/amd64 {_told(labels)} \n"
        (self.folder / "images").write_text(images)

    def put(self, content: bytes, labels: dict[str, str] | None = None) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        (self.blobs / digest[7:]).write_bytes(content)
        state = self.state()
        state["labels"].setdefault(digest, {}).update(labels or {})
        self.save(state)
        return digest

    def forget(self, digest: str) -> None:
        state = self.state()
        del state["labels"][digest]
        self.save(state)
        (self.blobs / digest[7:]).unlink()

    def name(self, name: str, digest: str, media_type: str = MANIFEST, labels: dict[str, str] | None = None) -> None:
        state = self.state()
        state["images"][name] = [digest, media_type, labels or {}]
        self.save(state)

    def add(
        self, name: str, layers: list[bytes], *, compressed: bool = False, noted: bool = True, architecture: str = "amd64"
    ) -> str:  # fmt: skip
        """An image of uncompressed layers, stored as they are or by gzip; `noted`: with the label of the diffID."""
        import gzip

        listed = []
        for layer in layers:
            diff_id = "sha256:" + hashlib.sha256(layer).hexdigest()
            form = gzip.compress(layer, 1, mtime=0) if compressed else layer
            digest = self.put(form, {UNCOMPRESSED: diff_id} if noted else None)
            listed.append({"mediaType": LAYER + ("+gzip" if compressed else ""), "digest": digest, "size": len(form)})
        content = config_of(layers, name, architecture)
        config = {"mediaType": CONFIG, "digest": self.put(content), "size": len(content)}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": listed}).encode()
        digest = self.put(manifest, {"containerd.io/gc.ref.content.config": config["digest"]})
        if name:
            self.name(name, digest)
        return digest

    def add_index(self, name: str, entries: list[tuple[str, str, int]]) -> str:
        """An index of (architecture, manifest's digest, its size)."""
        listed = [
            {"mediaType": MANIFEST, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": architecture}}
            for architecture, digest, size in entries
        ]  # fmt: skip
        digest = self.put(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}).encode())
        self.name(name, digest, INDEX)
        return digest


def config_of(layers: list[bytes], name: str, architecture: str = "amd64") -> bytes:
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    return json.dumps(
        {"architecture": architecture, "os": "linux", "config": {"Env": [name]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()  # fmt: skip


# What only reads is answered by the shell: a look starts ctr half a dozen times, and Python takes its time to start.
WRAPPER = """#!/bin/sh
folder="{folder}"; echo "$*" >>"$folder/calls"; all=$*; space=
while :; do case "$1" in -n) space=$2; shift 2;; -*) shift 2;; *) break;; esac; done
[ ! -e "$folder/fail" ] || {{ sed "$ d" "$folder/fail" >&2; exit "$(tail -n 1 "$folder/fail")"; }}
case "$*" in
version) echo "Client:"; echo "  Version:  9.9"; echo; echo "Server:"; echo "  Version:  $(cat "$folder/version" 2>/dev/null || echo 1.6.20~ds1)";;
*--help) echo "   --no-unpack  skip unpacking"; [ ! -e "$folder/local" ] || echo "   --local  run import locally";;
*) [ -n "$space" ] || {{ echo "ctr: no namespace: $all" >&2; exit 9; }}
  case "$1 $2" in
  "plugins ls") echo "Type:          io.containerd.content.v1"; echo "ID:            content"; echo "Exports:      "
    [ -e "$folder/no-root" ] || echo "               root      $folder/io.containerd.content.v1.content "
    echo; [ -e "$folder/no-overlayfs" ] || {{ echo "Type:          io.containerd.snapshotter.v1"; echo "ID:            overlayfs"; }};;
  "content ls") cat "$folder/content";;
  "content get") grep -q "^$3" "$folder/content" || {{ echo "ctr: content $3: not found" >&2; exit 1; }}
    cat "$folder/io.containerd.content.v1.content/blobs/sha256/${{3#sha256:}}";;
  "images ls") cat "$folder/images";;
  "containers ls") cat "$folder/containers" 2>/dev/null || echo "CONTAINER    IMAGE    RUNTIME    ";;
  *) exec "{python}" -IS "{module}" "$folder" "$@";;
  esac;;
esac
"""


def wrapper(folder: Path) -> Path:
    """A program `ctr` over `folder`; the folder of the program."""
    program = folder / "bin" / "ctr"
    program.parent.mkdir(exist_ok=True)
    program.write_text(WRAPPER.format(folder=folder, python=sys.executable, module=__file__))
    program.chmod(0o755)
    return program.parent


def main(folder: Path, words: list[str]) -> int:
    store = Store(folder)
    if words[:2] == ["images", "rm"]:
        return do_images_rm(store, [word for word in words[2:] if word != "--sync"])
    return do_images_label(store, words[2:]) if words[:2] == ["images", "label"] else do_images_import(store)


def do_images_rm(store: Store, names: list[str]) -> int:
    """Their blobs stay, as long as nobody collects them; `busy` holds the name that is not let go."""
    state, busy = store.state(), (store.folder / "busy").read_text() if (store.folder / "busy").exists() else ""
    for name in names:
        if name == busy:
            print(f"ctr: unable to delete {name}: it is busy", file=sys.stderr)
        else:
            state["images"].pop(name, None)
    store.save(state)
    return int(busy in names)


def do_images_label(store: Store, words: list[str]) -> int:
    state = store.state()
    state["images"][words[0]][2].update(dict(word.split("=") for word in words[1:]))
    store.save(state)
    return 0


def do_images_import(store: Store) -> int:
    import io
    import tarfile

    before, documents, came = store.state(), dict[str, bytes](), list[str]()
    try:
        with tarfile.open(fileobj=io.BufferedReader(sys.stdin.buffer, 1 << 16), mode="r|") as archive:
            for member in archive:
                taken = archive.extractfile(member)
                assert taken is not None
                content = taken.read()
                if len(content) != member.size:
                    raise tarfile.ReadError("unexpected EOF")
                documents[member.name] = content
                if member.name != "oci-layout":
                    came.append(store.put(content))
        _name(store, documents)
    except (tarfile.TarError, EOFError, KeyError) as error:
        # The lease goes, and with it what it kept.
        for digest in came:
            if digest not in before["labels"]:
                store.forget(digest)
        print(f"ctr: {error}" if not isinstance(error, KeyError) else f"ctr: content digest {error.args[0]}: not found", file=sys.stderr)  # fmt: skip
        return 1
    if (store.folder / "slow").exists():
        time.sleep(float((store.folder / "slow").read_text()))
    return 0


def _name(store: Store, documents: dict[str, bytes]) -> None:
    if "oci-layout" not in documents or "index.json" not in documents:
        raise EOFError("unrecognized image format")
    labels = store.state()["labels"]
    for entry in json.loads(documents["index.json"])["manifests"]:
        manifest = json.loads((store.blobs / entry["digest"][7:]).read_bytes())
        for child in (manifest["config"], *manifest["layers"]):
            if child["digest"] not in labels:
                raise KeyError(child["digest"])
        store.name(entry["annotations"]["io.containerd.image.name"], entry["digest"], entry["mediaType"])


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
