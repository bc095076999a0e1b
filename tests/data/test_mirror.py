"""Prepared data sets from a mirror, which a small server of our own stands in for."""

import hashlib
import io
import json
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from clipadapt.data.mirror import MIRROR, REVISION, fetch
from clipadapt.errors import UserError


def archive(*names):
    """A zip archive with files of these names."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, name)
    return file.getvalue()


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's interface that a download needs."""

    files: ClassVar[dict[str, bytes]]
    checksums: ClassVar[dict[str, str]]

    def log_message(self, *words):
        """Say nothing."""

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        name = self.path.partition("?")[0].rpartition("/")[2]
        if REVISION not in self.path:
            self.send_error(404)
        elif self.path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in self.files]
            entries = [{"type": "file", "path": file, "size": 1, "oid": "0" * 40} for file in self.files]
            info = {"id": MIRROR, "sha": REVISION, "siblings": siblings, "modelId": MIRROR}
            self.send(json.dumps(entries if "/tree/" in self.path else info).encode(), {}, body)
        elif name in self.files:
            checksum = self.checksums.get(name, hashlib.sha256(self.files[name]).hexdigest())
            headers = {"X-Repo-Commit": REVISION, "ETag": f'"{checksum}"', "X-Linked-Etag": f'"{checksum}"'}
            self.send(self.files[name], headers, body)
        else:
            self.send_error(404)

    def send(self, content, headers, body):
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Start the server with files by name; its address."""
    servers = []

    def start(files, checksums=None):
        handler = type("Here", (Hub,), {"files": files, "checksums": checksums or {}})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield start
    for server in servers:
        server.shutdown()


FILES = {"caltech-101.zip": archive("caltech-101/split_zhou_Caltech101.json", "caltech-101/101_ObjectCategories/a.jpg")}
CALTECH = ["caltech-101/101_ObjectCategories", "caltech-101/split_zhou_Caltech101.json"]


def seen(home):
    """What is in a folder, but for locks."""
    return sorted(path.name for path in home.iterdir() if path.suffix != ".lock")


def test_a_data_set_is_put_where_it_belongs(hub, tmp_path):
    place = fetch(CALTECH, tmp_path / "data", hub(FILES))
    assert place == tmp_path / "data" / "caltech-101"
    assert (place / "101_ObjectCategories" / "a.jpg").read_text() == "caltech-101/101_ObjectCategories/a.jpg"
    assert seen(tmp_path / "data") == ["caltech-101"]
    with pytest.raises(UserError, match="caltech-101 is there: move it away"):
        fetch(CALTECH, tmp_path / "data", "http://127.0.0.1:9")


def test_an_archive_without_a_folder_of_its_own(hub, tmp_path):
    address = hub({"DTD.zip": archive("split.json", "images/a.jpg", "__MACOSX/x")})
    place = fetch(["dtd/images", "dtd/split.json"], tmp_path / "data", address)
    assert {path.name for path in place.iterdir()} == {"split.json", "images"}


def test_two_fetches_at_once(hub, tmp_path):
    address, start = hub(FILES), threading.Barrier(2)

    def one():
        start.wait()
        return fetch(CALTECH, tmp_path / "data", address)

    with ThreadPoolExecutor(2) as pool:
        places = [waiting.result() for waiting in [pool.submit(one), pool.submit(one)]]
    assert places == [tmp_path / "data" / "caltech-101"] * 2 and seen(tmp_path / "data") == ["caltech-101"]


def test_what_a_fetch_left_that_was_killed_is_removed(hub, tmp_path):
    (tmp_path / "data" / ".caltech-101.part" / "other").mkdir(parents=True)
    place = fetch(CALTECH, tmp_path / "data", hub(FILES))
    assert seen(tmp_path / "data") == ["caltech-101"]
    assert seen(place) == ["101_ObjectCategories", "split_zhou_Caltech101.json"]


def test_what_the_mirror_lacks(hub, tmp_path):
    with pytest.raises(UserError, match=r"has no mnist \(it has caltech-101\): prepare it as CoOp's instructions say"):
        fetch(["mnist/images"], tmp_path / "data", hub(FILES))
    assert seen(tmp_path / "data") == []


def test_what_came_damaged_is_fetched_again_by_the_next_try(hub, tmp_path):
    files = {"caltech-101.zip": b"damaged"}
    address = hub(files, {"caltech-101.zip": hashlib.sha256(FILES["caltech-101.zip"]).hexdigest()})
    for _ in range(2):
        with pytest.raises(UserError, match=r"caltech-101\.zip came damaged from the mirror .*, and was deleted: try"):
            fetch(CALTECH, tmp_path / "data", address)
    assert seen(tmp_path / "data") == []
    files |= FILES
    assert fetch(CALTECH, tmp_path / "data", address).is_dir()


def encrypted():
    """An archive whose file claims to be encrypted."""
    content = bytearray(archive("caltech-101/a"))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def unknown_compression():
    """An archive whose file claims to be compressed in a way that isn't known."""
    content = bytearray(archive("caltech-101/a"))
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 99
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>", "can't be unpacked: File is not a zip file"),
        (encrypted(), "can't be unpacked: .*encrypted"),
        (unknown_compression(), "can't be unpacked: .*compression"),
        (archive("caltech-101/101_ObjectCategories/a.jpg"), r"has no caltech-101/split_zhou_Caltech101\.json: prep"),
        (archive("caltech-101/split_zhou_Caltech101.json"), r"has no caltech-101/101_ObjectCategories: prepare it"),
    ],
)
def test_archives_that_are_no_data_set(hub, tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        fetch(CALTECH, tmp_path / "data", hub({"caltech-101.zip": content}))
    assert seen(tmp_path / "data") == []


@pytest.mark.parametrize("home", ["file", "file/below", "/proc/self"])
def test_a_home_that_cannot_be_used_is_told_before_the_download(hub, tmp_path, home):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the folder of data sets '.*' can't be used \(.*\): name another"):
        fetch(CALTECH, tmp_path / home, hub(FILES))
    assert not (tmp_path / "hub").exists()


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"can't be reached .*: try again, or prepare it as CoOp's instructions say"):
        fetch(["dtd/images"], tmp_path / "data")


def test_a_hub_that_does_not_answer_is_told_soon_and_once(hub, tmp_path, capfd):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"can't be reached \(.*refused\): try again, or prepare it"):
        fetch(["dtd/images"], tmp_path / "data", "http://127.0.0.1:9")
    assert time.monotonic() - began < 10 and "Retry" not in "".join(capfd.readouterr())


def test_an_error_without_words(hub, tmp_path, monkeypatch):
    def fail(*given, **options):
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", fail)
    with pytest.raises(UserError, match=r"can't be reached \(TimeoutError\): try again"):
        fetch(["dtd/images"], tmp_path / "data", hub(FILES))
