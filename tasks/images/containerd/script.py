"""The `sh` scripts that run where containerd runs.  One line each, for login shells that take no more.

Their first four arguments are the same: the words of `ctr` (`ctr`, `k3s ctr`), those in front of what only root may
(`sudo -n`, or none; the program then by its full path, for sudo's own PATH is shorter than the user's), the socket
("" for the usual one), and the namespace.  The namespace is always given: without it ctr works in `default`, where the
kubelet sees nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.images.remote import Remote

SECONDS_TO_CONNECT = 5

_CTR = (
    "ctr=$1; as=$2; address=$3; space=$4; shift 4; PATH=$PATH:/var/lib/rancher/rke2/bin; "
    'first=${ctr%% *}; ctr="$as $(command -v "$first" || echo "$first")${ctr#"$first"}"; '
    'c() { $ctr ${address:+-a "$address"} --connect-timeout ' + str(SECONDS_TO_CONNECT) + 's -n "$space" "$@"; }; '
)

# Sections begin with a line "@@ name".  What the answers are made of is read from the content store's own files where
# they may be read, through ctr where not: a file is read once for all, ctr is started for each.  Those are the small
# blobs that are no layers: indexes, manifests, configs.  Last comes the list of these and their contents in that order.
LOOK = _CTR + (
    "echo @@ machine; uname -s -m; "
    "echo @@ version; c version || exit $?; "
    'echo @@ plugins; plugins=$(c plugins ls -d id==content id==overlayfs) || exit $?; echo "$plugins"; '
    'root=$(echo "$plugins" | sed -n "s/ *$//; s/^ *root  *//p" | grep "content.v1" | head -n 1); '
    "blobs=$root/blobs/sha256; read=; "
    'if [ -z "$root" ] || [ ! -r "$blobs" ]; then '
    'if [ -n "$root" ] && [ -n "$as" ] && $as test -r "$blobs" 2>/dev/null; then read=$as; else blobs=; fi; fi; '
    'echo @@ room; [ -z "$root" ] || $read df -Pk "$root" 2>/dev/null; '
    "echo @@ images; c images ls || exit $?; "
    'echo @@ content; content=$(c content ls) || exit $?; echo "$content"; '
    'small=$(echo "$content" | grep -E "^sha256:[0-9a-f]+[[:space:]]+[0-9.]+k?B[[:space:]]" '
    '| grep -v "io/uncompressed=" | cut -c8-71); '
    'if [ -z "$blobs" ]; then blobs=$(mktemp -d) || exit 73; staged=$blobs; '
    'trap "rm -rf $staged" EXIT; trap "exit 143" HUP INT TERM; '
    'for each in $small; do c content get "sha256:$each" >"$blobs/$each" || rm -f "$blobs/$each"; done; fi; '
    'echo @@ sizes; $read find "$blobs" -type f -exec stat -c "%s %n" {} +; '
    'set --; for each in $small; do set -- "$@" "$blobs/$each"; done; '
    'echo @@ documents; for each in $small; do echo "$each"; done; echo @@; '
    '[ $# = 0 ] || $read cat -- "$@"; exit 0'
)

# One blob after the other: before each a line with its digest, for ctr prints nothing else.
GET = _CTR + 'for each; do c content get "$each" || exit $?; done'

# --local: containerd 2 would otherwise hand the archive to its transfer service, which unpacks as that is configured.
# An import that meets the end of its input ends in order, and the lease goes that kept what had come: garbage
# collection takes it at once.  So where the input ends without an archive's end (512 zero bytes), because the line
# was cut, the import is killed: its lease then lives on (for 24 hours, client.WithLease), and the next try finds what
# came.  The input goes through a named pipe, whose far end is closed only after that.  Below sudo the import is root's,
# and sudo may stand between: all of them are killed, and by sudo.  Where sudo lets the user run nothing but ctr, the
# import ends in order, and the next try sends everything.  Nor does a signal that ends this script's own shell (here,
# without ssh) come before that.
IMPORT = _CTR + (
    'below() { for each in $(grep -ls "^PPid:[[:space:]]*$1$" /proc/[0-9]*/status); do '
    'each=${each%/status}; below "${each##*/}"; done; echo "$1"; }; '
    'set -- $1; case "$(c images import --help </dev/null 2>&1)" in *--local*) set -- --local "$@";; esac; '
    'd=$(mktemp -d) && mkfifo "$d/in" || exit 73; exec 3<&0; '
    '(exec $ctr ${address:+-a "$address"} -n "$space" images import "$@" - <"$d/in") 3<&- & tool=$!; '
    '(exec 7>"$d/in" >/dev/null 2>&1; left=$(tee /dev/fd/7 <&3 | tail -c 512 | tr -d "\\000" | wc -c); '
    '[ "$left" -eq 0 ] || $as kill -KILL $(below "$tool")) & feed=$!; '
    'exec 3<&-; trap "" TERM; wait "$tool"; code=$?; kill "$feed" 2>/dev/null; rm -rf "$d"; exit "$code"'
)

CONTAINERS = _CTR + "c containers ls"

# With --sync it returns when the content is gone, not when it might be collected.
REMOVE = _CTR + 'c images rm --sync "$@"'

LABEL = _CTR + 'label=$1; shift; for each; do c images label "$each" "$label" >/dev/null || exit $?; done'


@dataclass(frozen=True, slots=True)
class Ctr:
    """Which containerd, by which tool: `address` is its socket ("" for the usual one), `tool` the words of ctr."""

    remote: Remote
    address: str = ""
    namespace: str = "k8s.io"
    tool: str = "ctr"

    def command(self, script: str, *arguments: str) -> Sequence[str]:
        """The command that runs one of the scripts; it is to run without the remote's own sudo."""
        sudo = "sudo -n" if self.remote.host.sudo else ""
        name = self.tool.split()[0]
        return ["sh", "-c", script, name, self.tool, sudo, self.address, self.namespace, *arguments]
