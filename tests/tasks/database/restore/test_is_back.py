"""Whether a database is as its backup has it, where the restore that made it so died in its last moment."""

import os
import subprocess
import sys
from pathlib import Path

from tasks.database.restore.names import LOCK
from tasks.database.way_back import is_back
from tests.tasks.database.restore.world import DB, Client, backup

HOLD = """
import sys, time
from tasks.database.connection import open_database
from tasks.database.restore.lock import hold
with open_database(sys.argv[1]) as client, hold(client, sys.argv[2], "a.archive"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_that_a_dead_restore_left_is_no_half_database(client: Client, uri: str, tmp_path: Path) -> None:
    client.drop_database(DB)
    client[DB]["policies"].insert_many([{"_id": i} for i in range(5)])
    archive = backup(uri, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, uri, DB], stdout=subprocess.PIPE, text=True, env=environment
    ) as restore:
        assert restore.stdout
        assert restore.stdout.readline() == "held\n"
        restore.kill()
    assert LOCK in client[DB].list_collection_names()

    there, why = is_back(client, DB, archive)
    assert there, why
    assert LOCK not in client[DB].list_collection_names()
    client[DB]["policies"].delete_one({"_id": 3})
    there, why = is_back(client, DB, archive)
    assert not there
    assert "policies" in why
