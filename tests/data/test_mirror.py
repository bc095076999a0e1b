"""Prepared data sets from a mirror, which a small server of our own stands in for."""

import hashlib
import io
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from clipadapt.data.mirror import MIRROR, fetch
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
        if self.path.startswith("/api/"):
            siblings = [{"rfilename": file} for file in self.files]
            entries = [{"type": "file", "path": file, "size": 1, "oid": "0" * 40} for file in self.files]
            info = {"id": MIRROR, "sha": "1" * 40, "siblings": siblings, "modelId": MIRROR}
            self.send(json.dumps(entries if "/tree/" in self.path else info).encode(), {}, body)
        elif name in self.files:
            checksum = self.checksums.get(name, hashlib.sha256(self.files[name]).hexdigest())
            headers = {"X-Repo-Commit": "1" * 40, "ETag": f'"{checksum}"', "X-Linked-Etag": f'"{checksum}"'}
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


def test_a_data_set_is_put_where_it_belongs(hub, tmp_path):
    place = fetch("caltech-101", tmp_path / "data", hub(FILES))
    assert place == tmp_path / "data" / "caltech-101"
    assert (place / "101_ObjectCategories" / "a.jpg").read_text() == "caltech-101/101_ObjectCategories/a.jpg"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["caltech-101"]
    with pytest.raises(UserError, match="caltech-101 is there: move it away"):
        fetch("caltech-101", tmp_path / "data", "http://127.0.0.1:9")


def test_an_archive_without_a_folder_of_its_own(hub, tmp_path):
    address = hub({"DTD.zip": archive("split.json", "images/a.jpg", "__MACOSX/x")})
    place = fetch("dtd", tmp_path / "data", address)
    assert {path.name for path in place.iterdir()} == {"split.json", "images"}


def test_what_the_mirror_lacks(hub, tmp_path):
    with pytest.raises(
        UserError, match=r"has no imagenet \(it has caltech-101\): prepare it as CoOp's instructions say"
    ):
        fetch("imagenet", tmp_path / "data", hub(FILES))
    assert not (tmp_path / "data").exists()


def test_what_came_damaged(hub, tmp_path):
    address = hub(FILES, {"caltech-101.zip": "0" * 64})
    with pytest.raises(UserError, match=r"caltech-101\.zip came damaged from the mirror"):
        fetch("caltech-101", tmp_path / "data", address)
    assert not (tmp_path / "data").exists()


def test_no_zip_archive(hub, tmp_path):
    with pytest.raises(UserError, match=r"can't be unpacked: File is not a zip file"):
        fetch("caltech-101", tmp_path / "data", hub({"caltech-101.zip": b"<html>"}))
    assert not [*(tmp_path / "data").iterdir()]


def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"can't be reached .*: try again, or prepare it as CoOp's instructions say"):
        fetch("dtd", tmp_path / "data")
