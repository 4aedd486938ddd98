"""Whether a directory outlives the process that writes backups to it, judged by the mount that holds it.

A container's own file system goes with the container, an `emptyDir` with its pod, a `tmpfs` with the memory.
`judge` is pure; `place_of` reads what it needs.  Fields of mountinfo: proc_pid_mountinfo(5).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MEMORY = {"tmpfs", "ramfs"}
# What container runtimes put under a container's root: the layers' union, or a copy of them.
_UNIONS = {"overlay", "aufs", "fuse.fuse-overlayfs", "fuse.unionfs-fuse", "9p", "virtiofs"}
_STORES = re.compile(r"/(docker|containerd|containers/storage|crio)/|io\.containerd\.snapshotter|/overlay2/|/vfs/dir/")
# The kubelet's folder of such a volume: /var/lib/kubelet/pods/UID/volumes/kubernetes.io~empty-dir/NAME.
_EMPTY_DIR = "kubernetes.io~empty-dir"
# A volume of Docker or Podman that nobody gave a name: `--rm` takes it along.
_NAMELESS = re.compile(r"/volumes/[0-9a-f]{64}/_data(/|$)")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "lustre", "gpfs", "ocfs2", "gfs2", "glusterfs"}


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo: where it is mounted, what of the file system is, its type, its source, its options."""

    point: str
    root: str
    kind: str
    source: str
    options: str

    @property
    def network(self) -> bool:
        """Whether other machines may write there too."""
        return self.kind in _NETWORK or self.kind.startswith("fuse")


@dataclass(frozen=True, slots=True)
class Place:
    """The verdict: `ephemeral` says why the directory is lost with the container, `warning` what to think of; or ""."""

    mount: Mount | None
    ephemeral: str = ""
    warning: str = ""


def mounts(mountinfo: str) -> list[Mount]:
    """The lines of /proc/self/mountinfo; a line that is none is passed over."""
    found = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if separator and len(left) >= 6 and len(right) >= 2:
            options = right[2] if len(right) > 2 else ""
            found.append(Mount(_plain(left[4]), _plain(left[3]), right[0], _plain(right[1]), _plain(options)))
    return found


def mount_of(directory: str, mountinfo: str) -> Mount | None:
    """The mount that holds `directory`, an absolute path without links; of several on one point the last."""
    path = PurePosixPath(directory)
    holding = [mount for mount in mounts(mountinfo) if path.is_relative_to(mount.point)]
    return max(reversed(holding), key=lambda mount: len(PurePosixPath(mount.point).parts), default=None)


def judge(directory: str, mountinfo: str, *, container: bool, kubernetes: bool) -> Place:
    """Judge `directory` (absolute, links resolved).

    `container`: a container runtime left its mark (/.dockerenv, /run/.containerenv); `kubernetes`: this is a
    pod (KUBERNETES_SERVICE_HOST).  A disk's own file system (ext4, xfs, …) is taken for lasting even there:
    virtual machines are made of container images too.
    """
    mount = mount_of(directory, mountinfo)
    if mount is None:
        return Place(None, warning=f"What holds {directory} could not be told; see that it outlives this process.")
    inside = container or kubernetes
    if mount.kind in _MEMORY:
        what = f"{directory} is in memory ({mount.kind} on {mount.point})"
        if inside:
            return Place(mount, ephemeral=f"{what} and goes with the container.")
        return Place(mount, warning=f"{what}: it is lost with the next start of the machine.")
    if _EMPTY_DIR in mount.root:
        return Place(mount, ephemeral=f"{directory} is on an emptyDir volume, which goes with its pod.")
    if inside and mount.point == "/" and _is_layered(mount):
        return Place(mount, ephemeral=f"{directory} is on the container's own file system, which goes with it.")
    if mount.point == "/" and mount.kind in {"overlay", "aufs"}:
        return Place(mount, warning=f"{directory} is on a layered root file system: see that it outlives a restart.")
    if kubernetes and mount.point == "/":
        return Place(mount, warning=f"{directory} is on the pod's root file system: see that it outlives the pod.")
    if _NAMELESS.search(mount.root):
        return Place(mount, warning=f"{directory} is on a volume without a name, which may go with its container.")
    return Place(mount)


def place_of(directory: Path) -> Place:
    """Judge `directory`, which need not exist yet."""
    return judge(
        os.path.realpath(directory),
        _mountinfo(),
        container=any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv")),
        kubernetes="KUBERNETES_SERVICE_HOST" in os.environ,
    )


def ephemeral(directory: Path) -> str:
    """Why backups in `directory` would not outlive this worker, or ""."""
    return place_of(directory).ephemeral


def on_network(directory: Path) -> bool:
    """Whether machines other than this one may write to `directory`."""
    mount = mount_of(os.path.realpath(directory), _mountinfo())
    return mount is not None and mount.network


def _mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""


def _is_layered(mount: Mount) -> bool:
    return mount.kind in _UNIONS or bool(_STORES.search(f"{mount.root}/ {mount.source}/"))


def _plain(text: str) -> str:
    """Spaces, tabs, line ends and backslashes are written as octal numbers."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
