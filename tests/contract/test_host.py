"""What every host promises, whichever way it is reached."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from blocks._base import HostBlock
from certrail.connectors import CommandResult, Host
from certrail.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    StorageFull,
    Unreachable,
)
from certrail.remote.local import LocalHost
from certrail.remote.posix_paths import to_text
from tests.contract.host_cases import CASES, Case, Machines, machines
from tests.support.process import binary, wait_for

AWKWARD = (
    "$(touch canary)`touch canary`;touch canary;",
    "' ;touch canary; '\"",
    "-rf",
    "--",
    " \n\t\r",
    "*[a]?~#",
    "!!\\n%s%n",
    "ü\u202e" + to_text(b"\xff\xfe"),
    "." + "x" * 254,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("hosts")) as running:
        yield running


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def host(case: Case, world: Machines) -> Iterator[Host]:
    with case.open(world) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Mount 64 KiB of memory at *path*."""
    path.mkdir()
    mount, umount = binary("mount", "mount"), binary("umount", "mount")
    subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run([umount, str(path)], check=True)


def test_every_host_is_under_contract() -> None:
    """A block without a case would be a connector nobody tests."""
    blocks = {case.block for case in CASES if case.block is not None}

    assert HostBlock.vendors() == blocks


def test_check_names_account_and_system(host: Host) -> None:
    """`connector check` is how people see whom they let in."""
    assert host.check().startswith("root on Linux")


@pytest.mark.parametrize("content", [b"", b"\0\r\n\x04\x1b\xff", os.urandom(300_000)])
def test_content_comes_back_unchanged(host: Host, folder: str, content: bytes) -> None:
    """Keys and PKCS #12 files are bytes, not lines."""
    host.write_file(f"{folder}/file", content)

    assert content == host.read_file(f"{folder}/file")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o777])
def test_mode_is_exactly_as_asked(host: Host, tmp_path: Path, mode: int) -> None:
    """A umask on the host must neither widen nor narrow it."""
    host.write_file(f"{tmp_path}/file", b"x", mode=mode)

    assert mode == (tmp_path / "file").stat().st_mode & 0o7777
    found = host.info(f"{tmp_path}/file")
    assert found is not None
    assert mode == found.mode


def test_replacing_keeps_owner_and_group(host: Host, tmp_path: Path) -> None:
    """A server that runs as its own account must still read the renewed key."""
    (tmp_path / "file").write_bytes(b"old")
    os.chown(tmp_path / "file", 33, 34)

    host.write_file(f"{tmp_path}/file", b"new", mode=0o640)

    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (33, 34)


@pytest.mark.parametrize(("owner", "group"), [("www-data", "backup"), ("33", "34")])
def test_owner_and_group_are_set_by_name_or_number(
    host: Host, tmp_path: Path, owner: str, group: str
) -> None:
    """Key files often belong to root and a group of their readers."""
    host.write_file(f"{tmp_path}/file", b"x", mode=0o640, owner=owner, group=group)

    found = host.info(f"{tmp_path}/file")
    assert found is not None
    assert (found.owner, found.group, found.mode) == ("www-data", "backup", 0o640)


def test_group_alone_leaves_the_owner(host: Host, tmp_path: Path) -> None:
    """Half of the question must not change the other half."""
    (tmp_path / "file").write_bytes(b"old")
    os.chown(tmp_path / "file", 33, 33)

    host.write_file(f"{tmp_path}/file", b"new", group="backup")

    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (33, 34)


def test_unknown_owner_leaves_the_old_file(host: Host, tmp_path: Path) -> None:
    """A misspelt account is found before anything is replaced."""
    (tmp_path / "file").write_bytes(b"old")

    with pytest.raises(NotFound):
        host.write_file(f"{tmp_path}/file", b"new", owner="no-such-account")

    assert [tmp_path / "file"] == list(tmp_path.iterdir())
    assert (tmp_path / "file").read_bytes() == b"old"


def test_readers_never_see_half_a_file(host: Host, tmp_path: Path) -> None:
    """A server may reload at any moment."""
    path = tmp_path / "file"
    old, new = b"a" * 200_000, b"b" * 200_000
    path.write_bytes(old)
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for content in (new, old, new):
            host.write_file(str(path), content)
    finally:
        done.set()
        watcher.join()

    assert seen <= {old, new}


def test_a_link_is_replaced_and_not_written_through(host: Host, tmp_path: Path) -> None:
    """Whoever may plant a link must not choose what is overwritten."""
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "link").symlink_to("victim")

    host.write_file(f"{tmp_path}/link", b"new")

    assert (tmp_path / "victim").read_bytes() == b"old"
    assert not (tmp_path / "link").is_symlink()


def test_full_disk_leaves_the_old_file_and_no_leftover(host: Host, tmp_path: Path) -> None:
    """The certificate in use must survive a renewal that found no room."""
    with small_disk(tmp_path / "disk") as disk:
        (disk / "file").write_bytes(b"old")

        with pytest.raises(StorageFull) as caught:
            host.write_file(f"{disk}/file", b"n" * 200_000)

        assert str(disk) in caught.value.remedy
        assert [path.name for path in disk.iterdir()] == ["file"]
        assert (disk / "file").read_bytes() == b"old"


def test_a_directory_is_not_replaced_by_a_file(host: Host, tmp_path: Path) -> None:
    """A wrong path in the configuration must not cost a directory."""
    (tmp_path / "directory").mkdir()

    with pytest.raises(Conflict):
        host.write_file(f"{tmp_path}/directory", b"x")
    with pytest.raises(Conflict):
        host.make_link(f"{tmp_path}/directory", "elsewhere")

    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


def test_missing_parent_is_not_found(host: Host, folder: str) -> None:
    """Directories appear only when asked for."""
    with pytest.raises(NotFound):
        host.write_file(f"{folder}/no/file", b"x")


def test_refused_by_the_system_is_permission_refused(host: Host) -> None:
    """Not even root makes files there."""
    with pytest.raises(PermissionRefused) as caught:
        host.write_file("/sys/kernel/certrail", b"x")

    assert caught.value.remedy


def test_reading_what_is_not_there(host: Host, folder: str) -> None:
    """Callers tell a missing file from a broken host."""
    with pytest.raises(NotFound):
        host.read_file(f"{folder}/no")
    with pytest.raises(Conflict):
        host.read_file(folder)


def test_reading_stops_at_the_limit(host: Host, folder: str) -> None:
    """A log file named by mistake must not fill the worker's memory."""
    host.write_file(f"{folder}/file", b"x" * 101)

    assert host.read_file(f"{folder}/file", limit=101) == b"x" * 101
    with pytest.raises(Conflict):
        host.read_file(f"{folder}/file", limit=100)


def test_directories_are_made_with_their_parents(host: Host, tmp_path: Path) -> None:
    """The key directory is closed, the way to it stays open for the server."""
    host.make_directory(f"{tmp_path}/a/b/c", mode=0o700)
    host.make_directory(f"{tmp_path}/a/b/c", mode=0o755)

    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "a/b/c").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_way_of_a_directory(host: Host, tmp_path: Path) -> None:
    """What is there is not removed to make room."""
    (tmp_path / "file").write_bytes(b"x")

    with pytest.raises(Conflict):
        host.make_directory(f"{tmp_path}/file")


def test_a_link_is_made_and_replaced(host: Host, tmp_path: Path) -> None:
    """`live` moves from one version to the next in one step."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    for target in ("one", "two", f"{tmp_path}/$(touch canary)"):
        host.make_link(f"{tmp_path}/live", target)

        assert target == os.readlink(tmp_path / "live")
    assert {"one", "two", "live"} == {path.name for path in tmp_path.iterdir()}
    assert not list((tmp_path / "one").iterdir())


def test_rename_replaces(host: Host, tmp_path: Path) -> None:
    """Activation is a rename."""
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "live").write_bytes(b"old")

    host.rename(f"{tmp_path}/new", f"{tmp_path}/live")

    assert (tmp_path / "live").read_bytes() == b"new"
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotFound):
        host.rename(f"{tmp_path}/new", f"{tmp_path}/live")


def test_rename_does_not_copy_between_file_systems(host: Host, tmp_path: Path) -> None:
    """A copy would not be one step."""
    (tmp_path / "new").write_bytes(b"new")
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(Conflict):
            host.rename(f"{tmp_path}/new", f"{disk}/live")

        assert not (disk / "live").exists()


def test_removing(host: Host, tmp_path: Path) -> None:
    """Absent is quiet, a link is removed and never followed, a tree only when asked for."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_bytes(b"x")
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "empty").mkdir()

    host.remove(f"{tmp_path}/absent")
    host.remove(f"{tmp_path}/absent", tree=True)
    host.remove(f"{tmp_path}/kept/file/below")
    host.remove(f"{tmp_path}/link", tree=True)
    host.remove(f"{tmp_path}/empty")
    with pytest.raises(Conflict):
        host.remove(f"{tmp_path}/tree")
    host.remove(f"{tmp_path}/tree", tree=True)

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


@pytest.mark.parametrize("path", ["", "/", "/etc", "/etc/", "/a/../etc", "tmp/x", "/tmp/..", "/."])
def test_dangerous_removals_are_refused(host: Host, path: str) -> None:
    """A variable that was empty must not cost a machine."""
    with pytest.raises(InvalidRequest):
        host.remove(path, tree=True)


def test_info_of_each_kind(host: Host, tmp_path: Path) -> None:
    """Links are described, not followed."""
    (tmp_path / "file").write_bytes(b"four")
    (tmp_path / "link").symlink_to("a b\n")
    os.mkfifo(tmp_path / "pipe")
    os.lchown(tmp_path / "link", 54321, 54322)

    kinds = {}
    for name in ("file", "link", "pipe", "", "absent", "file/below"):
        found = host.info(f"{tmp_path}/{name}")
        kinds[name] = found and (found.kind, found.target)

    assert kinds == {
        "file": ("file", ""),
        "link": ("link", "a b\n"),
        "pipe": ("other", ""),
        "": ("directory", ""),
        "absent": None,
        "file/below": None,
    }
    found = host.info(f"{tmp_path}/file")
    assert found is not None
    assert (found.owner, found.group, found.size) == ("root", "root", 4)
    link = host.info(f"{tmp_path}/link")
    assert link is not None
    assert (link.owner, link.group) == ("54321", "54322")


def test_listing(host: Host, tmp_path: Path) -> None:
    """Sorted, dot files included; what is no directory is not found."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")

    assert host.list_directory(str(tmp_path)) == (".hidden", "file")
    for path in ("absent", "file"):
        with pytest.raises(NotFound):
            host.list_directory(f"{tmp_path}/{path}")


def test_real_path_follows_every_link(host: Host, tmp_path: Path) -> None:
    """Configuration files are edited where they really are."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "dangling").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")

    assert f"{tmp_path}/a/file" == host.real_path(f"{tmp_path}/b/../b/file")
    for path in ("dangling", "absent", "loop"):
        with pytest.raises(NotFound):
            host.real_path(f"{tmp_path}/{path}")


def test_glob_expands_like_a_shell(host: Host, tmp_path: Path) -> None:
    """`include conf.d/*.conf` means the files a server would read."""
    for name in ("a/x.conf", "a/.h.conf", "a/y.txt", "b/x.conf", "b/[z].conf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a/gone.conf").symlink_to("absent")

    def names(pattern: str) -> list[str]:
        return [path.removeprefix(f"{tmp_path}/") for path in host.glob(f"{tmp_path}/{pattern}")]

    assert names("a/*.conf") == ["a/gone.conf", "a/x.conf"]
    assert names("*/x.conf") == ["a/x.conf", "b/x.conf"]
    assert names("a/.*") == ["a/.h.conf"]
    assert names("?/[xy].*") == ["a/x.conf", "a/y.txt", "b/x.conf"]
    assert names("b/[[]z].conf") == ["b/[z].conf"]
    assert names("a/x.conf") == ["a/x.conf"]
    assert names("absent/*") == []
    assert names("absent") == []


@given(names=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=2, unique=True))
@example(names=[name.encode("utf-8", "surrogateescape") for name in AWKWARD])
@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_file_name_is_only_a_name(
    host: Host, world: Machines, tmp_path: Path, names: list[bytes]
) -> None:
    """No byte in a name reaches a shell or is lost."""
    usable = [
        to_text(name.replace(b"\0", b"0").replace(b"/", b"1"))
        for name in names
        if name not in (b".", b"..")
    ]
    top = tmp_path / "names"
    top.mkdir(exist_ok=True)
    base = str(top)

    for name in usable:
        host.write_file(f"{base}/{name}", name.encode("utf-8", "surrogateescape"))

    assert tuple(sorted(set(usable))) == host.list_directory(base)
    for name in usable:
        assert host.read_file(f"{base}/{name}") == name.encode("utf-8", "surrogateescape")
        found = host.info(f"{base}/{name}")
        assert found is not None
        assert host.real_path(f"{base}/{name}") == f"{base}/{name}"
        host.remove(f"{base}/{name}")
    assert host.list_directory(base) == ()
    started_in = (Path.cwd(), Path.home(), world.administrator.home, world.operator.home)
    assert not [place for place in started_in if (place / "canary").exists()]


def test_arguments_reach_the_program_as_they_are(host: Host, tmp_path: Path) -> None:
    """No shell interprets what a command is given."""
    arguments = [*AWKWARD, "", f"$(touch {tmp_path}/canary)", f"`touch {tmp_path}/canary`"]

    result = host.run(["printf", "%s\\0", *arguments])

    assert result.exit_code == 0
    assert arguments == [to_text(part) for part in result.stdout.split(b"\0")[:-1]]
    assert not list(tmp_path.iterdir())


def test_a_command_gives_its_output_and_exit_code(host: Host) -> None:
    """A non-zero exit code is a result: `nginx -t` says why on standard error."""
    result = host.run(["sh", "-c", "cat; echo bad >&2; exit 3"], stdin=b"in\0put")

    assert (result.exit_code, result.stdout, result.stderr) == (3, b"in\0put", b"bad\n")


def test_a_missing_program_is_exit_code_127(host: Host) -> None:
    """As in a shell, whichever way the host is reached."""
    assert host.run(["certrail-no-such-program"]).exit_code == 127


def test_programs_of_the_administrator_are_found(host: Host) -> None:
    """nginx and apachectl lie in /usr/sbin, which is not in every account's PATH."""
    assert host.run(["sh", "-c", "command -v useradd"]).exit_code == 0


def test_much_input_and_output_does_not_block(host: Host) -> None:
    """Both directions at once, more than any buffer holds; output is cut at the limit."""
    result = host.run(
        ["sh", "-c", "cat; cat /dev/zero | head -c 3000000 >&2"], stdin=b"x" * 3_000_000
    )

    assert result.exit_code == 0
    assert result.stdout == b"x" * 1024 * 1024
    assert bytes(1024 * 1024) == result.stderr


def test_input_that_nobody_reads_is_no_error(host: Host) -> None:
    """A command may end before it has read everything."""
    assert host.run(["true"], stdin=b"x" * 3_000_000).exit_code == 0


def test_a_hung_command_ends_at_its_deadline(host: Host, tmp_path: Path) -> None:
    """A hung command never holds a worker, and does not stay behind on the host."""
    seconds = "3601.5"
    with pytest.raises(Unreachable) as caught:
        host.run(["sh", "-c", f"sleep {seconds} & wait"], timeout=timedelta(seconds=0.5))

    assert "did not finish within 0.5 s" in str(caught.value)
    wait_for(
        lambda: (
            not any(
                ["sleep", seconds] == process.info["cmdline"]
                for process in psutil.process_iter(["cmdline"])
            )
        ),
        "the command was ended",
    )
    assert host.run(["true"]).exit_code == 0


def test_a_daemon_left_behind_does_not_hold_the_caller(host: Host) -> None:
    """`apachectl start` leaves a process that keeps the output open."""
    result = host.run(["sh", "-c", "sleep 4 & echo started"], timeout=timedelta(seconds=30))

    assert (result.exit_code, result.stdout) == (0, b"started\n")
    assert result.seconds < 4


@pytest.mark.parametrize("path", ["", "relative", "./x", "/a\0b", "~/x", "/a/\ud800"])
def test_what_is_no_absolute_path_is_refused(host: Host, path: str) -> None:
    """Before anything is sent anywhere."""
    for call in (host.read_file, host.info, host.list_directory, host.real_path, host.glob):
        with pytest.raises(InvalidRequest):
            call(path)
    with pytest.raises(InvalidRequest):
        host.write_file(path, b"x")


@pytest.mark.parametrize("argv", [[], [""], ["echo", "a\0b"], ["echo", "\ud800"], "echo"])
def test_what_is_no_command_is_refused(host: Host, argv: list[str]) -> None:
    """A string is not split into words by guesswork."""
    with pytest.raises(InvalidRequest):
        host.run(argv)


def test_two_opened_at_once_do_not_disturb_each_other(
    case: Case, world: Machines, tmp_path: Path
) -> None:
    """Many sites share one host."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with case.open(world) as host:
                for turn in range(5):
                    content = f"{number} {turn}".encode()
                    host.write_file(f"{tmp_path}/{number}", content)
                    assert content == host.read_file(f"{tmp_path}/{number}")
        except BaseException as exc:
            problems.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []


class Widens(LocalHost):
    """Broken: everybody may read what it writes."""

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        super().write_file(path, content, mode=mode | 0o044, owner=owner, group=group)


class WritesInPlace(LocalHost):
    """Broken: readers see half a file, and links are written through."""

    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        Path(path).write_bytes(content)


class Tidies(LocalHost):
    """Broken: white space at the end of a file is lost."""

    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        return super().read_file(path, limit=limit).rstrip()


class Pretends(LocalHost):
    """Broken: what is not there is empty."""

    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        return super().read_file(path, limit=limit) if Path(path).exists() else b""


class Shell(LocalHost):
    """Broken: arguments go through a shell."""

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        return super().run(["sh", "-c", " ".join(argv)], stdin=stdin, timeout=timeout)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Widens, lambda host, path: test_mode_is_exactly_as_asked(host, path, 0o600)),
        (WritesInPlace, test_a_link_is_replaced_and_not_written_through),
        (Tidies, lambda host, path: test_content_comes_back_unchanged(host, str(path), b"x\n")),
        (Pretends, lambda host, path: test_reading_what_is_not_there(host, str(path))),
        (Shell, test_arguments_reach_the_program_as_they_are),
    ],
    ids=["Widens", "WritesInPlace", "Tidies", "Pretends", "Shell"],
)
def test_the_suite_notices_a_broken_host(
    broken: type[LocalHost], promise: Callable[[Host, Path], None], tmp_path: Path
) -> None:
    """A suite that a broken host passes proves nothing about the good ones."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        promise(broken("here"), tmp_path)
