import hashlib
import io
import os
import re
import stat
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mtl_zoo.datasets import _base, _download
from mtl_zoo.datasets._base import Check, DatasetInfo, dataset_info
from mtl_zoo.datasets._download import FetchError, download, fetch_dataset, fetch_resource, unpack
from mtl_zoo.datasets._files import Resource

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; `breaks` says after how many bytes the next answers break off."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/data.bin": CONTENT}
        self.breaks = []
        self.failures = []
        self.ranges = True
        self.requests = []

    def url(self, path="/data.bin"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        if server.failures:
            return self.send_error(server.failures.pop(0))
        if self.path not in server.files:
            return self.send_error(404)
        content, start = server.files[self.path], 0
        if asked and server.ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else len(body)
        self.wfile.write(body[:stop])
        if stop < len(body):
            self.wfile.flush()
            self.connection.shutdown(2)
            self.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(_download.time, "sleep", lambda seconds: None)
    instance = Server()
    thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield instance
    instance.shutdown()
    instance.server_close()
    thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "new" / "folder" / "data.bin"


def part_of(target):
    return target.with_name("data.bin.part")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_download_checks_and_renames(server, target):
    seen = []
    result = download(
        server.url(),
        target,
        sha256=SHA256,
        md5=MD5,
        size=len(CONTENT),
        progress=lambda *step: seen.append(step),
    )
    assert result == target and target.read_bytes() == CONTENT
    assert names(target.parent) == ["data.bin"]
    assert seen[-1] == ("data.bin", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"size": 3}])
def test_wrong_content_leaves_nothing(server, target, wrong):
    kind, value = next(iter(wrong.items()))
    with pytest.raises(FetchError, match=f"`{kind}` must be that of the official file. Received: {kind}=.*{value}"):
        download(server.url(), target, **wrong)
    assert names(target.parent) == []


def test_wrong_content_keeps_the_old_file(server, target):
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    with pytest.raises(FetchError, match=r"`sha256` must be"):
        download(server.url(), target, sha256="0" * 64)
    assert target.read_bytes() == b"old"


def test_broken_connection_goes_on_where_it_broke(server, target):
    server.breaks = [1000, 50_000]
    download(server.url(), target, sha256=SHA256)
    assert target.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-", "bytes=51000-"]


def test_broken_for_good_keeps_the_part_and_the_next_call_resumes(server, target):
    server.breaks = [1000, 10]
    with pytest.raises(
        FetchError, match=r"broke after 1,010 of 512,000 bytes. 1,010 bytes are kept in .*data.bin.part"
    ):
        download(server.url(), target, retries=1)
    assert not target.exists() and part_of(target).read_bytes() == CONTENT[:1010]
    download(server.url(), target, sha256=SHA256)
    assert server.requests[-1] == "bytes=1010-"
    assert names(target.parent) == ["data.bin"]


def test_server_without_ranges_sends_all_again(server, target):
    server.ranges = False
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(b"rubbish")
    download(server.url(), target, sha256=SHA256)
    assert server.requests == ["bytes=7-"]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"longer"], ids=["whole", "longer"])
def test_part_with_nothing_left_to_ask_for(server, target, part):
    target.parent.mkdir(parents=True)
    part_of(target).write_bytes(part)
    download(server.url(), target, sha256=SHA256)
    assert target.read_bytes() == CONTENT


def test_server_errors_are_tried_again_and_missing_files_are_not(server, target):
    server.failures = [503, 500]
    download(server.url(), target, sha256=SHA256)
    assert len(server.requests) == 3
    with pytest.raises(FetchError, match=r"`url` must be there to download. Received: HTTP 404 from http"):
        download(server.url("/nothing"), target.with_name("other"))
    assert len(server.requests) == 4
    assert names(target.parent) == ["data.bin"]


def test_no_server(target, server):
    url = server.url()
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match=r"`url` must answer in full. Received from .*0 bytes are kept"):
        download(url, target, retries=0)
    assert names(target.parent) == []


def test_refuses_other_schemes_and_retries(target):
    with pytest.raises(ValueError, match=r"`url scheme` must be one of the known values. Received: url scheme='file'"):
        download("file:///etc/passwd", target)
    with pytest.raises(ValueError, match=r"`retries` must be a whole number >= 0"):
        download("http://localhost/", target, retries=-1)


def test_unwritable_folder(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"`data_dir` must be a folder that can be written to. Received: .*file"):
        download(server.url(), tmp_path / "file" / "data.bin")
    assert server.requests == []


def test_folder_without_permission(server, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):  # root may write anywhere

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(_download.Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"`data_dir` must be a folder that can be written to.*locked"):
        download(server.url(), folder / "data.bin")


def test_full_disk_says_so(server, target, monkeypatch):
    real = _download.Path.open

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    def open_full(self, mode="r", *args, **kwargs):
        return Full(self, "w") if mode == "wb" else real(self, mode, *args, **kwargs)

    monkeypatch.setattr(_download.Path, "open", open_full)
    with pytest.raises(OSError, match=r"`data_dir` must be a folder that can be written to.*No space left"):
        download(server.url(), target)
    assert not target.exists()


def make_zip(path, members, mode=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if mode is not None:
                info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpack(make, tmp_path):
    archive = make(tmp_path / "a", {"set/one.csv": b"1", "two.csv": b"2"})
    with_folder = tmp_path / "out"
    written = unpack(archive, with_folder)
    assert [path.relative_to(with_folder).as_posix() for path in written] == ["set/one.csv", "two.csv"]
    assert (with_folder / "set" / "one.csv").read_bytes() == b"1"


def test_unpack_makes_folders_of_empty_members(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.mkdir("set")
        archive.writestr("set/one.csv", "1")
    assert [path.name for path in unpack(tmp_path / "a", tmp_path / "out")] == ["one.csv"]
    with tarfile.open(tmp_path / "b", "w:gz") as archive:
        folder = tarfile.TarInfo("set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert unpack(tmp_path / "b", tmp_path / "out") == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../evil.csv", "set/../../evil.csv", "/tmp/evil.csv", "..\\evil.csv", "C:evil.csv"])
def test_archive_cannot_leave_its_folder(make, name, tmp_path):
    archive = make(tmp_path / "a", {"good.csv": b"1", name: b"2"})
    with pytest.raises(FetchError, match=r"`archive` may hold plain files below its folder only. .*outside the folder"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil.csv").exists()


def test_archive_cannot_leave_through_a_link_in_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "set").symlink_to(tmp_path / "outside")
    with pytest.raises(FetchError, match=r"outside the folder"):
        unpack(make_zip(tmp_path / "a", {"set/one.csv": b"1"}), tmp_path / "out")
    assert names(tmp_path / "outside") == []


def test_links_and_devices_are_refused(tmp_path):
    for archive in (
        make_tar(tmp_path / "a", {"good.csv": b"1", "link": "/etc/passwd"}),
        make_zip(tmp_path / "b", {"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777),
    ):
        with pytest.raises(FetchError, match=r"member 'link', a link or device"):
            unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_archives_leave_no_half_file(tmp_path):
    whole = make_tar(tmp_path / "a", {"one.csv": os.urandom(100_000)}).read_bytes()
    (tmp_path / "a").write_bytes(whole[:5000])
    with pytest.raises(FetchError, match=r"`archive` must be a whole .zip or .tar.gz, not encrypted. Received: "):
        unpack(tmp_path / "a", tmp_path / "out")
    content = bytearray(make_zip(tmp_path / "b", {"one.csv": b"x" * 1000}).read_bytes())
    content[200] ^= 1  # the checksum of the member no longer holds
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(FetchError, match=r"`archive` must be a whole"):
        unpack(tmp_path / "b", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# fault 37
@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_member_that_is_the_folder_itself_is_refused(make, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FetchError, match=r"member '\.', outside the folder"):
        unpack(make(tmp_path / "a", {"one.csv": b"1", ".": b"2"}), tmp_path / "out")
    assert (tmp_path / "out").is_dir() and names(tmp_path / "out") == []


# fault 37
def test_an_encrypted_zip_is_one_clear_error(tmp_path):
    content = bytearray(make_zip(tmp_path / "a", {"one.csv": b"1" * 100}).read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(start) + offset] |= 1  # the bit that says so
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FetchError, match=r"`archive` must be a whole .zip or .tar.gz, not encrypted"):
        unpack(tmp_path / "a", tmp_path / "out")


def test_fetch_resource_unpacks_and_drops_the_archive(server, tmp_path):
    server.files["/a.zip"] = make_zip(tmp_path / "a", {"set/one.csv": b"1"}).read_bytes()
    assert fetch_resource(Resource(server.url("/a.zip"), "a.zip", unpack=True), tmp_path / "out") == tmp_path / "out"
    assert names(tmp_path / "out") == ["set"] and names(tmp_path / "out" / "set") == ["one.csv"]
    file = fetch_resource(Resource(server.url(), "data.bin", sha256=SHA256), tmp_path / "out")
    assert file.read_bytes() == CONTENT


@pytest.fixture
def toy(server, monkeypatch):
    """A data set of one file, registered for the test."""

    def check_files(roots):
        path = roots[0] / "toy" / "data.bin"
        if not path.exists():
            raise FileNotFoundError(path)
        size = path.stat().st_size
        return [Check("size", "512,000", f"{size:,}", size == len(CONTENT))]

    def register(**fields):
        info = DatasetInfo(
            **{
                "name": "toy",
                "loader": lambda data_dir=None: None,
                "summary": "A toy.",
                "source": "here",
                "licence": "none",
                "folders": ("toy",),
                "files": ("data.bin",),
                "resources": (Resource(server.url(), "data.bin"),),
                "check_files": check_files,
            }
            | fields
        )
        monkeypatch.setitem(_base._REGISTRY._entries, "toy", info)

    register()
    return register


def test_fetch_keeps_what_is_whole_and_replaces_what_is_not(server, toy, tmp_path):
    assert all(c.ok for c in fetch_dataset("toy", tmp_path))
    fetch_dataset("toy", tmp_path)
    assert len(server.requests) == 1
    fetch_dataset("toy", tmp_path, force=True)
    assert len(server.requests) == 2
    (tmp_path / "toy" / "data.bin").write_bytes(b"altered")
    fetch_dataset("toy", tmp_path)
    assert (tmp_path / "toy" / "data.bin").read_bytes() == CONTENT


def test_fetch_fails_where_the_counts_do_not_hold(server, toy, tmp_path):
    server.files["/data.bin"] = b"another version"
    with pytest.raises(
        ValueError, match=r"`toy` must be the official files. Received in .*: size 15, expected 512,000"
    ):
        fetch_dataset("toy", tmp_path)


def test_fetch_behind_a_login_says_where_and_which(toy, tmp_path):
    toy(login="Log in at https://example.org.", resources=())
    with pytest.raises(FetchError) as error:
        fetch_dataset("toy", tmp_path)
    for text in ("https://example.org", "data.bin", str(tmp_path / "toy"), "mtl-zoo data verify toy"):
        assert text in str(error.value)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "data.bin").write_bytes(CONTENT)
    assert all(c.ok for c in fetch_dataset("toy", tmp_path))
    (tmp_path / "toy" / "data.bin").write_bytes(b"altered")
    with pytest.raises(ValueError, match=r"`toy` must be the official files"):
        fetch_dataset("toy", tmp_path)


def test_fetch_of_generated_data_needs_nothing():
    assert all(c.ok for c in fetch_dataset("synthetic_regression"))


@pytest.mark.parametrize("name", ["ali_ccp", "aliexpress"])
def test_sets_behind_a_login(name, tmp_path):
    with pytest.raises(FetchError, match=f"behind a login.*tianchi.aliyun.com.*mtl-zoo data verify {name}"):
        fetch_dataset(name, tmp_path)
    assert dataset_info(name).resources == ()
