"""How long an offline upgrade takes beside the published procedure typed in by hand, in the same run.

    python -m tests.bench.images [ROUNDS] [FROM] [TO]

Needs a real cluster that may be wrecked ($KUBECONFIG, $DOCKER_HOST and the REALCLUSTER_* variables), and the
procedure as a script beside its command ($REALCLUSTER_COMMAND).  In turns: a fresh installation, upgraded by the
script; a fresh one, its images staged by this tool, then again a fresh one upgraded by one command, images included.
The wire is counted outside of the tool, between ssh and sshd.  Ends with 1 where an aim is missed.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

IMAGES_AIM = 0.10  # of the script's seconds for images
WHOLE_AIM = 0.35  # of the script's seconds in all
WIRE_AIM = 1.1  # of the missing bytes
COMMAND = Path(sys.executable).parent / "apinizer-upgrade"
ROOT = Path(__file__).parents[2]


def missing_bytes(old: str, new: str) -> int:
    """Bytes of the layers and configurations that images of `new` have and those of `old` do not, for one node.

    Read from the archives that the cluster was installed from, not from the tool.
    """
    return sum(size for digest, size in _contents(new).items() if digest not in _contents(old))


def _contents(version: str) -> dict[str, int]:
    archive = Path(os.environ["REALCLUSTER_IMAGES"]) / f"apinizer-{version}.tar"
    found = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.isreg() or not re.search(r"layer\.tar$|^[0-9a-f]{64}\.json$|blobs/", member.name):
                continue
            content = tar.extractfile(member)
            assert content is not None
            found[hashlib.file_digest(content, "sha256").hexdigest()] = member.size  # type: ignore[arg-type]
    return found


def configuration(folder: Path, wire: Path) -> Path:
    """A configuration that reaches both nodes through the counter."""
    nodes: dict[str, Any] = {}
    lines = []
    for letter in "AB":
        host, _, port = os.environ[f"REALCLUSTER_NODE_{letter}"].partition(":")
        name = f"node-{letter.lower()}"
        nodes[name] = {"name": name, "host": name}
        lines += [
            f"Host {name}",
            f"  HostName {host}",
            f"  Port {port}",
            "  User root",
            f"  HostKeyAlias [{host}]:{port}",
            f"  IdentityFile {os.environ['REALCLUSTER_SSH_KEY']}",
            f"  UserKnownHostsFile {os.environ['REALCLUSTER_KNOWN_HOSTS']}",
            f"  ProxyCommand {sys.executable} -S {ROOT / 'tests' / 'bench' / 'wire.py'} %h %p {wire}",
        ]
    ssh = folder / "ssh_config"
    ssh.write_text("\n".join(lines) + "\n")
    file = folder / "site.yaml"
    images = {"way": "docker-to-nodes", "nodes": {"config_file": str(ssh), "named": list(nodes.values())}}
    file.write_text(yaml.safe_dump({"images": images, "backup_dir": str(folder / "backups")}))
    return file


def reset(version: str) -> None:
    subprocess.run([os.environ["REALCLUSTER_COMMAND"], "reset", version], check=True, stderr=subprocess.DEVNULL)


def by_hand(version: str) -> tuple[float, float]:
    """Seconds for images and in all, as the script prints them."""
    script = Path(os.environ["REALCLUSTER_COMMAND"]).with_name("runbook")
    said = subprocess.run([str(script), version], check=True, stdout=subprocess.PIPE, text=True).stdout
    found = re.search(r"images ([\d.]+) s, rollout [\d.]+ s, total ([\d.]+) s", said)
    assert found, said
    return float(found[1]), float(found[2])


def ours(*arguments: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole command, and what it printed as JSON."""
    begin = time.monotonic()
    env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [str(COMMAND), *arguments, "-o", "json"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )  # fmt: skip
    seconds = time.monotonic() - begin
    assert done.returncode == 0, done.stderr + done.stdout
    return seconds, json.loads(done.stdout)


def main(rounds: int, old: str, new: str) -> int:
    """Measure and print; 1 where an aim is missed."""
    missing = 2 * missing_bytes(old, new)
    print(f"{old} to {new}, two nodes: {missing / 1e6:.1f} MB are missing there; {rounds} rounds", flush=True)
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        wire = folder / "wire"
        config = str(configuration(folder, wire))
        for number in range(rounds):
            reset(old)
            images, whole = by_hand(new)
            reset(old)
            wire.write_text("")
            staged, result = ours("images", "stage", "--to", new, "-f", config)
            sent = sum(int(line.split()[0]) for line in wire.read_text().splitlines())
            reset(old)
            upgraded, _ = ours("upgrade", "--to", new, "--together", "--yes", "-f", config)
            found.append(
                {
                    "images": images,
                    "whole": whole,
                    "brought": float(result["seconds"]),
                    "staged": staged,
                    "upgraded": upgraded,
                    "sent": sent,
                }
            )
            print(f"round {number + 1}: by hand images {images:.1f} s, in all {whole:.1f} s; this tool: images {result['seconds']:.1f} s (command {staged:.1f} s), {sent / 1e6:.1f} MB on the wire; upgrade {upgraded:.1f} s", flush=True)  # fmt: skip
    shares = {
        f"images, of by hand (aim {IMAGES_AIM})": (median(f["brought"] / f["images"] for f in found), IMAGES_AIM),
        f"whole upgrade, of by hand (aim {WHOLE_AIM})": (median(f["upgraded"] / f["whole"] for f in found), WHOLE_AIM),
        f"bytes on the wire, of the missing (aim {WIRE_AIM})": (median(f["sent"] / missing for f in found), WIRE_AIM),
    }
    for what, (share, _) in shares.items():
        print(f"{what:50}{share:8.3f}")
    return int(any(share > aim for share, aim in shares.values()))


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = ["3", "2025.04.3", "2025.07.0"]
    rounds, old, new = given + defaults[len(given) :]
    sys.exit(main(int(rounds), old, new))
