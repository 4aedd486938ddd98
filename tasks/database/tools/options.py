"""What is asked for, as options of the tools.

Sources: mongo-tools, mongodump/options.go and mongorestore/options.go; the patterns of `--nsInclude` are those
of mongorestore/ns/ns.go, where `*` stands for anything and a backslash takes a character as it is.
"""

from collections.abc import Iterable

from tasks.database.engine import tool_limit
from tasks.database.restore.names import PREFIX as RESTORE_PREFIX
from tasks.database.scope import Scope
from tasks.domain.errors import UsageError


def dump_options(scope: Scope, *, gzip: bool, oplog: bool) -> list[str]:
    """mongodump's options for an archive of `scope` on standard output.

    `oplog` is for a whole server only.  Copies that an unfinished restore left in the one database are not
    taken.  Raises UsageError for a scope that one mongodump cannot take.
    """
    scope.check()
    if limit := tool_limit(scope):
        raise UsageError("mongodump cannot take this backup.", observed=limit, next="Use --engine native.")
    options = ["--archive"]
    if gzip:
        options.append("--gzip")
    for database in scope.databases:
        options.append(f"--db={database}")
        options += [f"--excludeCollection={left_out_name(name, database)}" for name in scope.left_out]
        options.append(f"--excludeCollectionsWithPrefix={RESTORE_PREFIX}")
    if oplog and scope.whole_server:
        options.append("--oplog")
    return options


def left_out_name(name: str, database: str) -> str:
    """A collection to leave out, without the database before it."""
    return name.removeprefix(f"{database}.")


def restore_options(
    names: Iterable[tuple[str, str]], *, source: str, target: str, gzip: bool, everything: bool = False
) -> list[str]:
    """mongorestore's options to put collections of an archive on standard input in the place of what is there.

    `names` are pairs of a collection in the archive's database `source` and its name in `target`; `everything`
    says that they are all that the archive has of it, which one pattern can say however many they are.
    """
    options = ["--archive", "--drop", "--stopOnError"]
    if gzip:
        options.append("--gzip")
    if everything:
        options += [f"--nsInclude={pattern(source)}.*", f"--nsExclude={pattern(source)}.{RESTORE_PREFIX}*"]
        if source != target:
            options += [f"--nsFrom={pattern(source)}.*", f"--nsTo={pattern(target)}.*"]
        return options
    for old, new in names:
        options.append(f"--nsInclude={pattern(f'{source}.{old}')}")
        if (source, old) != (target, new):
            options += [f"--nsFrom={pattern(f'{source}.{old}')}", f"--nsTo={pattern(f'{target}.{new}')}"]
    return options


def pattern(namespace: str) -> str:
    """The pattern that means this one namespace."""
    return namespace.replace("\\", "\\\\").replace("*", "\\*")
