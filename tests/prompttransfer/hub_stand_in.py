"""A stand-in of the hub's HTTP interface on this machine: repositories in memory, as much of it as push and pull use."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_standin"


class Hub:
    """Repositories: name -> commit -> path -> bytes; and branches: (name, branch) -> commit."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.licences: dict[str, object] = {}
        self.messages: list[str] = []
        self.damage: set[str] = set()
        """Paths of which a cut part is sent."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def create(self, name: str) -> None:
        if name not in self.commits:
            self.commits[name] = {}
            self._commit(name, "main", {".gitattributes": b""})

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        return self.commits[name][self.commit_of(name, revision)]

    def commit_of(self, name: str, revision: str) -> str:
        return self.branches.get((name, revision), revision)

    def _commit(self, name: str, branch: str, files: dict[str, bytes]) -> str:
        said = repr((name, branch, len(self.commits[name]), sorted(files))).encode()
        oid = hashlib.sha1(said).hexdigest()
        self.commits[name][oid] = files
        self.branches[name, branch] = oid
        return oid

    def take(self, name: str, branch: str, lines: list[dict]) -> str:
        files = dict(self.files(name, branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return self._commit(name, branch, files)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        self._send(status, json.dumps(value).encode(), Content_Type="application/json", **headers)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _missing(self, code: str) -> None:
        self._json({"error": code}, 404, X_Error_Code=code)

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "validate" not in path:
            self._json({"error": "who are you?"}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.hub.create(name)
            self._json({"url": f"{self.hub.url}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(\S+/\S+)/branch/(\S+)", path):
            name, branch = found.groups()
            self.hub.branches[name, branch] = self.hub.commit_of(name, "main")
            self._json({})
        elif found := re.fullmatch(r"/api/models/(\S+?/\S+?)/preupload/(\S+)", path):
            asked = json.loads(body)["files"]
            self._json(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
                    ]
                }
            )
        elif found := re.fullmatch(r"/api/models/(\S+?/\S+?)/commit/(\S+)", path):
            name, branch = found.groups()
            oid = self.hub.take(name, branch, [json.loads(line) for line in body.splitlines()])
            url = f"{self.hub.url}/{name}/commit/{oid}"
            self._json({"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})
        else:
            self._missing("EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/datasets/(\S+)", path):
            name = found[1]
            if name not in self.hub.licences:
                return self._missing("RepoNotFound")
            return self._json({"id": name, "sha": "0" * 40, "cardData": {"license": self.hub.licences[name]}})
        found = re.fullmatch(
            r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+))?", path
        ) or re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not found or found[1] not in self.hub.commits:
            return self._missing("RepoNotFound")
        name, revision = found[1], found[2] or "main"
        oid = self.hub.commit_of(name, revision)
        if oid not in self.hub.commits[name]:
            return self._missing("RevisionNotFound")
        files = self.hub.commits[name][oid]
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": p, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for p, data in files.items()
            ]
            return self._json(entries)
        if path.startswith("/api/"):
            return self._json({"id": name, "sha": oid, "siblings": [{"rfilename": p} for p in files]})
        if found[3] not in files:
            return self._missing("EntryNotFound")
        data = files[found[3]]
        if found[3] in self.hub.damage:
            data = data[: len(data) // 2]
        return self._send(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=oid)
