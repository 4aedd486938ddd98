"""The list of a directory's backups, and what is cleared from it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import bson
import pytest

from tasks.database import needed as needed_module
from tasks.database import slot as slot_module
from tasks.database import sweep as sweep_module
from tasks.database.catalogue import backups
from tasks.database.manifest import Manifest, Need, load, manifest_path, save
from tasks.database.naming import BackupName, archive_name, parse
from tasks.database.needed import archives_in, needed_for_restore, pin, release, release_of_abandoned
from tasks.database.proof import prove
from tasks.database.slot import Slot, claim
from tasks.database.steps import release_after_upgrade
from tasks.database.sweep import is_dead, remove_old, sweep
from tasks.domain.errors import DamagedArchiveError, NotFoundError, UpgradeError, UsageError
from tests.domain.journals import backup, journal, rollback, set_image

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
DAY = NOW.date()
Archive = Callable[..., bytes]
Made = Callable[..., Path]


@pytest.fixture
def made(archive: Archive, tmp_path: Path) -> Made:
    """Makes a backup with its manifest, `age` days old, proved unless told otherwise."""

    def make(age: int, *, number: int = 1, proved: bool = True, documents: int = 3, version: str = "2025.04.3") -> Path:
        taken = NOW - timedelta(days=age)
        path = tmp_path / archive_name(version, taken.date(), number)
        path.write_bytes(archive({"c": [{"_id": i, "age": age} for i in range(documents)]}))
        proof = prove(path)
        manifest = Manifest(
            archive=path.name, tool_version="1", apinizer_version=version, server_version=proof.server_version,
            database="db", started=taken, ended=taken, duration_seconds=0, read_concern="majority", gzip=False,
            size=proof.size, sha256=proof.sha256, namespaces=proof.namespaces,
        )  # fmt: skip
        save(path, manifest)
        if proved:
            prove(path, now=lambda: taken)
        return path

    return make


class TestNames:
    def test_parse_is_the_inverse(self) -> None:
        assert parse(archive_name("2025.04.3", DAY, 7)) == BackupName("2025.04.3", DAY, 7)
        assert parse(archive_name("x--y", DAY, 100)) == BackupName("x_-y", DAY, 100)

    @pytest.mark.parametrize(
        "name",
        [
            "", "a.archive", "apinizer-backup--1--2026-11-22--01.archive.json", "apinizer-backup--1--2026-13-45--01.archive",
            ".apinizer-backup--1--2026-11-22--01.archive.partial", "apinizer-backup--1--2026-11-22--1.archive",
            "apinizer-backup----2026-11-22--01.archive", "apinizer-backup--1--2026-11-22--01.archive.gz",
        ],
    )  # fmt: skip
    def test_other_names(self, name: str) -> None:
        assert parse(name) is None


class TestCatalogue:
    def test_newest_first_and_what_is_known(self, made: Made, tmp_path: Path) -> None:
        old, unproved, new = made(9), made(5, proved=False), made(1)
        found = backups(tmp_path)
        assert [backup.archive for backup in found] == [new, unproved, old]
        assert [backup.proved for backup in found] == [True, False, True]
        assert [backup.problem for backup in found] == ["", "", ""]
        assert found[0].version == "2025.04.3"
        assert found[0].size == new.stat().st_size
        assert found[0].sha256 == prove(new).sha256
        assert found[0].taken == NOW - timedelta(days=1)

    def test_two_of_one_day_are_in_the_order_of_their_numbers(self, made: Made, tmp_path: Path) -> None:
        one, two = made(1, number=1), made(1, number=2)
        assert [backup.archive for backup in backups(tmp_path)] == [two, one]

    def test_other_files_are_passed_over(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "other.archive").write_bytes(b"x")
        (tmp_path / archive_name("1", DAY, 9)).mkdir()
        (tmp_path / archive_name("1", DAY, 8)).symlink_to("nowhere")
        (tmp_path / f".{path.name}.partial").write_bytes(b"x")
        assert [backup.archive for backup in backups(tmp_path)] == [path]

    def test_a_file_of_another_size_is_not_what_was_proved(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        path.write_bytes(path.read_bytes()[:-1])
        (found,) = backups(tmp_path)
        assert not found.proved
        assert "its manifest says" in found.problem

    def test_a_proof_of_another_sum_does_not_count(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        manifest = load(path)
        assert manifest is not None
        save(path, manifest.model_copy(update={"sha256": "0" * 64}))
        assert not backups(tmp_path)[0].proved

    def test_a_proof_that_failed_later_is_withdrawn(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        good = path.read_bytes()
        path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
        assert backups(tmp_path)[0].proved  # The size is the same: nobody has read it yet.
        with pytest.raises(DamagedArchiveError):
            prove(path)
        assert not backups(tmp_path)[0].proved
        path.write_bytes(good)
        assert prove(path).recorded
        assert backups(tmp_path)[0].proved

    @pytest.mark.parametrize("text", ["", "{}", '{"format": "apinizer-upgrade/backup-manifest/2"}', "\xff"])
    def test_a_damaged_manifest_is_a_problem_not_an_end(self, made: Made, tmp_path: Path, text: str) -> None:
        path = made(1)
        manifest_path(path).write_text(text, encoding="latin-1")
        (found,) = backups(tmp_path)
        assert (found.manifest, found.proved) == (None, False)
        assert "manifest" in found.problem
        assert found.version == "2025.04.3"

    def test_without_a_manifest(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        manifest_path(path).unlink()
        (found,) = backups(tmp_path)
        assert (found.proved, found.problem, found.sha256) == (False, "It has no manifest.", "")

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            backups(tmp_path / "none")
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError):
            backups(tmp_path / "file")


class TestRetention:
    def test_old_ones_go_with_their_manifests_and_journals(self, made: Made, tmp_path: Path) -> None:
        paths = [made(age) for age in (1, 2, 3, 4)]
        paths[3].with_name(f"{paths[3].name}.journal.json").write_text("{}")
        removed = remove_old(tmp_path, keep=2, days=None, now=lambda: NOW)
        assert [backup.archive for backup in removed] == [paths[3], paths[2]]
        left = {paths[0].name, paths[1].name}
        assert {path.name for path in tmp_path.iterdir()} == left | {f"{name}.json" for name in left}

    def test_a_damaged_newest_one_does_not_push_out_the_good_one(self, made: Made, tmp_path: Path) -> None:
        good, damaged = made(400), made(1)
        damaged.write_bytes(damaged.read_bytes()[:-5])
        assert remove_old(tmp_path, keep=1, days=30, now=lambda: NOW) == []
        assert good.exists()

    def test_what_a_journal_names_stays(self, made: Made, tmp_path: Path) -> None:
        made(1)
        named = made(500)
        manifest = load(named)
        assert manifest is not None
        for name in (str(named), named.name, manifest.sha256):
            assert remove_old(tmp_path, keep=1, days=1, named=frozenset({name}), now=lambda: NOW) == []
        assert len(remove_old(tmp_path, keep=1, days=1, now=lambda: NOW)) == 1

    def test_no_rule_does_not_even_look(self, tmp_path: Path) -> None:
        assert remove_old(tmp_path / "none", keep=None, days=None) == []

    def test_one_that_another_run_removes_first(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made(1)
        old = made(2)
        listed = backups(tmp_path)
        monkeypatch.setattr(sweep_module, "backups", lambda _: listed)
        old.unlink()
        manifest_path(old).unlink()
        assert [backup.archive for backup in remove_old(tmp_path, keep=1, days=None, now=lambda: NOW)] == [old]


class TestSweep:
    def test_a_living_runs_file_stays(self, tmp_path: Path) -> None:
        slot = claim(tmp_path, "1", DAY)
        slot.file.write(b"half")
        assert sweep(tmp_path) == []
        assert slot.partial.read_bytes() == b"half"
        slot.discard()

    def test_a_dead_runs_file_goes(self, tmp_path: Path) -> None:
        program = (
            "import sys, os, signal\nfrom pathlib import Path\nfrom datetime import date\n"
            "from tasks.database.manifest import manifest_path\nfrom tasks.database.slot import claim\n"
            "slot = claim(Path(sys.argv[1]), '1', date(2026, 11, 22))\n"
            "slot.file.write(b'half')\nmanifest_path(slot.archive).write_text('{}')\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
        assert len(list(tmp_path.iterdir())) == 2
        assert backups(tmp_path) == []
        removed = sweep(tmp_path)
        assert sorted(path.name for path in removed) == [
            ".apinizer-backup--1--2026-11-22--01.archive.partial",
            "apinizer-backup--1--2026-11-22--01.archive.json",
        ]
        assert list(tmp_path.iterdir()) == []

    def test_a_run_that_died_between_the_archives_name_and_the_end(self, made: Made, tmp_path: Path) -> None:
        path = made(1)
        (tmp_path / f".{path.name}.partial").hardlink_to(path)
        assert [p.name for p in sweep(tmp_path)] == [f".{path.name}.partial"]
        assert backups(tmp_path)[0].proved

    def test_a_published_manifest_is_never_touched(self, made: Made, tmp_path: Path) -> None:
        """A manifest whose archive was taken elsewhere is somebody's; only a dead run's own goes."""
        path = made(1)
        path.unlink()
        assert sweep(tmp_path) == []
        assert manifest_path(path).exists()

    def test_other_files_stay(self, tmp_path: Path) -> None:
        for name in (".x.partial", "a.partial", ".apinizer-backup--1--2026-11-22--01.partial", ".archive.partial"):
            (tmp_path / name).write_text("x")
        target = tmp_path / "target"
        target.write_text("x")
        (tmp_path / ".apinizer-backup--1--2026-11-22--01.archive.partial").symlink_to(target)
        os.mkfifo(tmp_path / ".apinizer-backup--1--2026-11-22--02.archive.partial")
        assert sweep(tmp_path) == []
        assert target.exists()

    @pytest.mark.parametrize("kind", ["json", "journal.json"])
    def test_half_a_manifest_or_journal_goes_when_it_is_old(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f".apinizer-backup--1--2026-11-22--01.archive.{kind}.partial"
        path.write_text("{")
        now = path.stat().st_mtime
        assert sweep(tmp_path, clock=lambda: now + 60) == []
        assert sweep(tmp_path, clock=lambda: now + 2 * 60 * 60) == [path]

    def test_no_directory(self, tmp_path: Path) -> None:
        assert sweep(tmp_path / "none") == []

    def test_without_locks_only_age_tells(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No file system without flock is at hand: the answer of one is given here."""
        monkeypatch.setattr(slot_module, "lock", lambda _: None)
        monkeypatch.setattr(sweep_module, "lock", lambda _: None)
        slot = claim(tmp_path, "1", DAY)
        written = slot.partial.stat().st_mtime
        assert sweep(tmp_path, clock=lambda: written + 3600) == []
        assert sweep(tmp_path, clock=lambda: written + 25 * 3600) == [slot.partial]
        slot.discard()

    @pytest.mark.parametrize(
        ("locked", "quiet", "network", "dead"),
        [
            (True, 0, False, True),
            (False, 10**9, False, False),
            (True, 60, True, False),
            (True, 7200, True, True),
            (False, 10**9, True, False),
            (None, 7200, False, False),
            (None, 10**6, False, True),
            (None, 10**6, True, True),
        ],
    )
    def test_is_dead(self, locked: bool | None, quiet: float, network: bool, dead: bool) -> None:  # noqa: FBT001
        assert is_dead(locked, quiet, network=network) is dead


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[Slot]:
    found = claim(tmp_path, "1", date(2026, 11, 22))
    yield found
    found.discard()


class TestClaims:
    def test_a_file_swept_before_its_lock_is_not_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A sweep of another run may meet the file between its making and its lock."""
        real, swept = slot_module.lock, list[Path]()

        def lock(handle: int) -> bool | None:
            if not swept:
                swept.extend(sweep(tmp_path))
            return real(handle)

        monkeypatch.setattr(slot_module, "lock", lock)
        slot = claim(tmp_path, "1", DAY)
        assert len(swept) == 1
        assert slot.partial.exists()
        assert sweep(tmp_path) == []
        slot.discard()

    def test_a_sweep_that_holds_the_lock_just_now(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real, asked = slot_module.lock, list[int]()

        def lock(handle: int) -> bool | None:
            asked.append(handle)
            return False if len(asked) == 1 else real(handle)

        monkeypatch.setattr(slot_module, "lock", lock)
        slot = claim(tmp_path, "1", DAY)
        assert len(asked) == 2
        assert slot.partial.exists()
        slot.discard()

    def test_an_orphaned_manifest_keeps_its_number_and_its_life(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Published between the look and the claim, then taken elsewhere: not this run's to remove."""
        numbers = iter([1, 2])
        monkeypatch.setattr(slot_module, "next_number", lambda *_: next(numbers))
        manifest = manifest_path(tmp_path / archive_name("1", DAY, 1))
        manifest.write_text("{}")
        slot = claim(tmp_path, "1", DAY)
        assert slot.archive.name == archive_name("1", DAY, 2)
        assert manifest.exists()
        assert not (tmp_path / f".{archive_name('1', DAY, 1)}.partial").exists()
        slot.discard()

    def test_a_name_that_is_another_runs_by_now_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Swept before its lock, and the same number claimed by another run at once."""
        real, other = slot_module.lock, list[Slot]()

        def lock(handle: int) -> bool | None:
            if not other:
                monkeypatch.setattr(slot_module, "lock", real)
                sweep(tmp_path)
                other.append(claim(tmp_path, "1", DAY))
            return real(handle)

        monkeypatch.setattr(slot_module, "lock", lock)
        slot = claim(tmp_path, "1", DAY)
        assert other[0].partial.exists()
        assert slot.partial != other[0].partial
        other[0].publish()
        slot.discard()

    def test_a_sweep_that_opened_what_another_sweep_removes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between its look and its lock the dead file goes and a living run takes the name."""
        dead = claim(tmp_path, "1", DAY)
        dead.file.close()
        real, living = sweep_module.lock, list[Slot]()

        def lock(handle: int) -> bool | None:
            if not living:
                monkeypatch.setattr(sweep_module, "lock", real)
                assert sweep(tmp_path) == [dead.partial]
                living.append(claim(tmp_path, "1", DAY))
                assert living[0].partial == dead.partial
            return real(handle)

        monkeypatch.setattr(sweep_module, "lock", lock)
        assert sweep(tmp_path) == []
        living[0].publish()
        assert living[0].archive.exists()

    def test_three_runs_on_one_directory_at_once(self, tmp_path: Path) -> None:
        """Two runs of one moment: different numbers, and either's sweep leaves the other's file."""
        program = (
            "import sys\nfrom pathlib import Path\nfrom datetime import date\n"
            "from tasks.database.slot import claim\nfrom tasks.database.sweep import sweep\n"
            "for _ in range(20):\n"
            "    sweep(Path(sys.argv[1]))\n"
            "    slot = claim(Path(sys.argv[1]), '1', date(2026, 11, 22))\n"
            "    slot.file.write(sys.argv[2].encode())\n"
            "    sweep(Path(sys.argv[1]))\n"
            "    slot.publish()\n"
        )
        runs = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), who]) for who in ("a", "b", "c")]
        assert [run.wait(120) for run in runs] == [0, 0, 0]
        files = sorted(tmp_path.iterdir())
        assert len(files) == 60
        assert all(parse(path.name) for path in files)
        assert sorted(path.read_text() for path in files) == ["a"] * 20 + ["b"] * 20 + ["c"] * 20

    def test_published_is_0600_and_whole(self, slot: Slot) -> None:
        slot.file.write(b"all")
        slot.publish()
        assert slot.archive.read_bytes() == b"all"
        assert slot.archive.stat().st_mode & 0o777 == 0o600
        assert not slot.partial.exists()


def test_the_fixture_makes_real_documents(made: Made) -> None:
    path = made(3, documents=2)
    assert bson.encode({"_id": 1, "age": 3}) in path.read_bytes()


def test_manifests_of_other_software_are_not_touched(made: Made, tmp_path: Path) -> None:
    path = made(1)
    manifest_path(path).write_text('{"format": "somebody else\'s"}')
    assert remove_old(tmp_path, keep=0, days=0, now=lambda: NOW + timedelta(days=100)) == []
    assert path.exists()


class TestNeeded:
    """What a run marks stays until that run has ended."""

    need = Need(run="restore", database="db", hosts="h:1", since=NOW, archive="a.archive")

    def test_marked_backups_stay(self, made: Made, tmp_path: Path) -> None:
        paths = [made(age) for age in (4, 3, 2, 1)]
        assert pin(paths[0], self.need)
        assert not pin(paths[0], self.need.model_copy(update={"since": NOW - timedelta(days=1)}))
        assert prove(paths[0]).recorded  # proved again, it stays marked
        assert [b.archive for b in remove_old(tmp_path, keep=1, days=None, now=lambda: NOW)] == paths[1:3]
        other = self.need.model_copy(update={"archive": "b.archive"})
        assert release(archives_in(tmp_path), other.of_same) == []
        assert [b.needed for b in backups(tmp_path)] == [False, True]
        assert release(archives_in(tmp_path, tmp_path / "none"), self.need.of_same) == []
        assert [b.archive for b in remove_old(tmp_path, keep=1, days=None, now=lambda: NOW)] == [paths[0]]

    def test_an_abandoned_upgrade_needs_nothing_any_more(self, made: Made, tmp_path: Path) -> None:
        """Nor what a try of it had made that died before it recorded its backup; others' marks stay."""
        recorded, died, later = made(4), made(3), made(2)
        kept = backup().model_copy(update={"archive": str(recorded), "database": "db", "hosts": ("h:1", "i:1")})
        upgrade = journal("a", set_image(), backup=kept)
        mine = Need(run="upgrade", database="db", hosts="i:1,h:1", since=NOW, version=str(upgrade.to))
        for path in (recorded, died):
            pin(path, mine)
        pin(later, mine.model_copy(update={"version": "2025.11.1"}))
        pin(recorded, self.need)
        assert release_of_abandoned(rollback(upgrade)) == []
        assert [b.needed for b in backups(tmp_path)] == [True, True, True]
        assert release_of_abandoned(upgrade) == []
        left = {b.archive: b.manifest.needed_by for b in backups(tmp_path) if b.manifest}
        assert left == {recorded: [self.need], died: [], later: [mine.model_copy(update={"version": "2025.11.1"})]}
        (told,) = release_of_abandoned(upgrade.model_copy(update={"backup": backup()}))
        assert "on bastion is not seen from here" in told

    def test_a_complete_upgrade_unmarks_by_its_journal(self, made: Made, tmp_path: Path) -> None:
        """Nothing is asked of a cluster: there is none."""
        path = made(1)
        pin(path, Need(run="upgrade", database="db", hosts="i:1,h:1", since=NOW, version="2025.07.0"))
        pin(path, self.need)
        kept = backup().model_copy(update={"archive": str(path), "database": "db", "hosts": ("h:1", "i:1")})
        manager = journal("a").manager
        release_after_upgrade("nowhere", manager, str(tmp_path), kept)
        (found,) = backups(tmp_path)
        assert found.manifest
        assert found.manifest.needed_by == [self.need]

    def test_one_that_is_marked_while_others_are_removed(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old, _ = made(4), made(1)
        listed = backups(tmp_path)
        monkeypatch.setattr(sweep_module, "backups", lambda _: listed)
        pin(old, self.need)
        assert remove_old(tmp_path, keep=1, days=None, now=lambda: NOW) == []
        assert old.exists()

    def test_a_restore_that_ended_half_keeps_both_and_its_end_lets_all_go(self, made: Made, tmp_path: Path) -> None:
        archive, first, second = made(4), made(3), made(2)

        def needed() -> set[Path]:
            return {b.archive for b in backups(tmp_path) if b.needed}

        def run(safety: Path, error: UpgradeError | None) -> None:
            with needed_for_restore(self.need, archive, safety, tmp_path, pytest.fail):
                assert {archive, safety} <= needed()
                if error:
                    raise error

        for error, stay in ((UpgradeError("?"), set[Path]()), (UpgradeError("?", safe="Half."), {archive, first})):
            with pytest.raises(UpgradeError):
                run(first, error)
            assert needed() == stay
        with pytest.raises(UpgradeError):
            run(second, UpgradeError("?"))  # this one changed nothing, the former did
        assert needed() == {archive, first}
        run(second, None)
        assert needed() == set()
        pin(first, self.need)
        other = self.need.model_copy(update={"archive": "b.archive"})
        with needed_for_restore(other, archive, second, tmp_path, pytest.fail):
            pass
        assert needed() == {first}
        with needed_for_restore(other, archive, second, tmp_path, pytest.fail, give_up=True):
            pass
        assert needed() == set()

    def test_without_a_manifest_or_the_right_to_write(
        self, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive, safety = made(4), made(3)

        def refused(path: Path, _: Manifest) -> Path:
            if path == archive:
                raise PermissionError(13, "Permission denied")
            return save(path, _)

        monkeypatch.setattr(needed_module, "save", refused)
        told: list[str] = []
        with needed_for_restore(self.need, archive, safety, tmp_path, told.append):
            assert backups(tmp_path)[0].needed
        assert "could not be marked" in told[0]
        with pytest.raises(UsageError), needed_for_restore(self.need, safety, archive, tmp_path, told.append):
            pytest.fail("it was let in")
        manifest_path(archive).unlink()
        assert not pin(archive, self.need)
