"""A local stand-in for the Hub: serves folders under Hub ids the way the Hub's own API does."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit


def commit_of(folder: Path) -> str:
    """Return a 40-digit commit that changes with any file's content."""
    digest = hashlib.sha1(usedforsecurity=False)
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Repo:
    """Hold one repository: its files, and who may read them."""

    folder: Path
    is_gated: bool = False
    """Described to everyone; its files are refused with 401 without a token and 403 with one."""
    is_private: bool = False


@dataclass
class HubStandIn:
    """Serve repositories on a free port of this machine; a context manager."""

    repos: dict[str, Repo]
    """Id, `datasets/` in front for a dataset -> repository."""
    failing: tuple[str, ...] = ()
    """Ids that are answered with 500."""
    requests: list[str] = field(default_factory=list)
    uploads: Path | None = None
    """Where repositories that are made go; none can be where it is None."""

    def __enter__(self) -> HubStandIn:
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[HubStandIn]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path.strip("/")
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != "Bearer writes":
            return self.refuse(403, "", "this token may not write")
        if path == "api/validate-yaml":
            return self.send_json({"errors": [], "warnings": []}, "")
        if path == "api/repos/create":
            return self.create(json.loads(body))
        repo_id, verb = "/".join(path.split("/")[2:4]), path.split("/")[4]
        if repo_id not in self.hub.repos:
            return self.refuse(404, "RepoNotFound", "Repository not found")
        if verb == "preupload":
            files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for one in json.loads(body)["files"]]  # fmt: skip
            return self.send_json({"files": files}, "")
        return self.commit(repo_id, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict) -> None:
        repo_id = f"{asked['organization']}/{asked['name']}"
        if self.hub.uploads is None or repo_id in self.hub.repos:
            return self.refuse(409, "", "You already created this model repo")
        folder = self.hub.uploads / repo_id.replace("/", "--")
        folder.mkdir()
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.repos[repo_id] = Repo(folder, is_private=bool(private))
        return self.send_json({"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}, "")

    def commit(self, repo_id: str, lines: list[dict]) -> None:
        folder = self.hub.repos[repo_id].folder
        for line in lines:
            if line["key"] == "file":
                file = folder / line["value"]["path"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(base64.b64decode(line["value"]["content"]))
        oid = commit_of(folder)
        url = f"{self.hub.endpoint}/{repo_id}/commit/{oid}"
        self.send_json({"commitUrl": url, "commitOid": oid, "hookOutput": ""}, oid)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        parts = [unquote(p) for p in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.requests.append(f"{self.command} {'/'.join(parts)}")
        is_api = parts[0] == "api"
        if is_api:
            parts = parts[1:]
            if parts[0] == "models":
                parts = parts[1:]
        width = 3 if parts[0] == "datasets" else 2
        repo_id, rest = "/".join(parts[:width]), parts[width:]
        repo = self.hub.repos.get(repo_id)
        if repo_id in self.hub.failing:
            return self.refuse(500, "", "down for maintenance")
        has_token = "Authorization" in self.headers
        if repo is None:
            return self.refuse(404 if has_token else 401, "RepoNotFound", "Repository not found")
        if repo.is_gated and not is_api:
            return self.refuse(403 if has_token else 401, "GatedRepo", "Access is restricted")
        commit = commit_of(repo.folder)
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in {"main", commit}:
            return self.refuse(404, "RevisionNotFound", "Invalid rev id")
        if is_api:
            return self.describe(repo, repo_id, commit, rest)
        return self.send_file(repo.folder.joinpath(*rest[2:]), commit)

    def describe(self, repo: Repo, repo_id: str, commit: str, rest: list[str]) -> None:
        files = sorted(p for p in repo.folder.rglob("*") if p.is_file())
        names = [p.relative_to(repo.folder).as_posix() for p in files]
        if rest[:1] == ["tree"]:
            below = "".join(f"{part}/" for part in rest[2:])
            if not any(name.startswith(below) for name in names):
                return self.refuse(404, "EntryNotFound", "Entry not found", commit)
            listed = [
                {"type": "file", "path": n, "size": f.stat().st_size, "oid": commit_of(f.parent)}
                for n, f in zip(names, files, strict=True)
                if n.startswith(below)
            ]
            return self.send_json(listed, commit)
        siblings = [{"rfilename": name} for name in names]
        return self.send_json(
            {"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings,
             "private": repo.is_private, "gated": False, "disabled": False, "tags": []},
            commit,
        )  # fmt: skip

    def send_file(self, file: Path, commit: str) -> None:
        if not file.is_file():
            return self.refuse(404, "EntryNotFound", "Entry not found", commit)
        content = file.read_bytes()
        etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return self.send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def send_json(self, value: object, commit: str) -> None:
        self.send(
            200,
            json.dumps(value).encode(),
            {"Content-Type": "application/json", "X-Repo-Commit": commit},
        )

    def refuse(self, status: int, code: str, message: str, commit: str = "") -> None:
        headers = {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        if commit:
            headers["X-Repo-Commit"] = commit
        self.send(status, b"", headers)

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
