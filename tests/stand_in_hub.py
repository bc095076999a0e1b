"""A stand-in for the Hugging Face hub over HTTP on this machine: repositories of files, with revisions and tokens.

It answers what huggingface_hub's own client asks to make a repository and a branch, to commit, to list and to download;
files go into commits themselves, not to storage beside them.
"""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by id, each all files, and the branches that point to them."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, changes: Files) -> str:
        """Add a commit to a branch and return its id."""
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **changes}
        name = hashlib.sha1(f"{len(self.commits)} {branch}".encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def find(self, revision: str) -> str | None:
        """Return the id of the commit of a branch or an id; None if there is none."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class StandInHub(ThreadingHTTPServer):
    """The server; `repositories` by name, `breaks` names a kind of request that it hangs up on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, Repository] = {}
        self.tokens, self.breaks, self.asked = {"writes"}, "", list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "StandInHub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def put(self, name: str, files: Files, branch: str = "main", private: bool = False) -> Repository:
        """Commit files to a repository, which is made if it isn't there."""
        repository = self.repositories.setdefault(name, Repository(private))
        repository.commit(branch, files)
        return repository


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: StandInHub

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self.serve()

    def do_GET(self) -> None:
        self.serve()

    def do_POST(self) -> None:
        self.serve()

    def serve(self) -> None:
        """Answer a request."""
        length = int(self.headers.get("Content-Length") or 0)
        body, parts = self.rfile.read(length), [unquote(part) for part in urlsplit(self.path).path.split("/")[1:]]
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.breaks and self.server.breaks in self.path:
            self.connection.close()
            return
        if parts == [""]:
            return self.answer({})
        if parts == ["api", "validate-yaml"]:
            return self.answer({"warnings": [], "errors": []})
        if parts[:3] == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        if parts[:2] == ["api", "models"]:
            name, what = "/".join(parts[2:4]), parts[4:]
        else:
            name, what = "/".join(parts[:2]), parts[2:]
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self.known):
            return self.refuse(404 if self.known else 401, "RepoNotFound", "Repository Not Found")
        self.serve_repository(name, repository, what, body)

    def serve_repository(self, name: str, repository: Repository, what: list[str], body: bytes) -> None:
        """Answer a request about a repository."""
        kind, revision, path = (what + [""] * 3)[0], (what + [""] * 3)[1], "/".join(what[2:])
        if self.command == "POST" and not self.known:
            return self.refuse(403, "", "Forbidden: you need the right to write")
        if kind == "branch":
            repository.branches[revision] = repository.branches["main"]
            return self.answer({})
        if kind == "preupload":
            asked = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in asked]
            return self.answer({"files": modes})
        if kind == "commit":
            return self.commit(name, repository, revision, body)
        commit = repository.find(revision or "main")
        if commit is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if kind == "resolve":
            return self.download(files, path, commit)
        if kind == "tree":
            return self.answer([self.describe(path, content) for path, content in files.items()])
        self.answer({"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files], "private": False})

    def create(self, asked: dict[str, Any]) -> None:
        """Make a repository."""
        if not self.known:
            return self.refuse(401, "", "Unauthorized: Invalid username or password")
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self.refuse(409, "", "You already created this model repo", {"url": f"{self.server.url}/{name}"})
        self.server.put(name, {".gitattributes": b""})
        self.server.repositories[name].private = asked.get("visibility") == "private"
        self.answer({"url": f"{self.server.url}/{name}", "name": name})

    def commit(self, name: str, repository: Repository, branch: str, body: bytes) -> None:
        """Add a commit."""
        lines = [json.loads(line) for line in body.splitlines()]
        files = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        commit = repository.commit(branch, files)
        url = f"{self.server.url}/{name}/commit/{commit}"
        self.answer({"commitUrl": url, "commitOid": commit, "pullRequestUrl": None})

    def download(self, files: Files, path: str, commit: str) -> None:
        """Send a file."""
        if path not in files:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        self.send(200, content, headers)

    @staticmethod
    def describe(path: str, content: bytes) -> dict[str, Any]:
        """Return what a listing says of a file."""
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    @property
    def known(self) -> bool:
        """Return whether the request has a token that is known."""
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") in self.server.tokens

    def answer(self, content: Any) -> None:
        """Send JSON."""
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str, content: Any = None) -> None:
        """Send an error."""
        body = json.dumps(content or {"error": message}).encode()
        self.send(status, body, {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a response."""
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
