"""A small Hub on the loopback: serves repositories, takes uploads, and fails on demand."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40


def error(status, code=None, **headers):
    """A response with a status and, as from the real Hub, an error code in the header."""
    named = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
    return status, {**named, **headers}, b""


class FakeHub:
    """Repositories are dictionaries from file names to contents.

    Attributes:
        repositories: By id; `commits` gives their commit, `COMMIT` otherwise.
        fault: Called with method and path; returns the response (status, headers, body) to send
            instead, or None for the regular one.
        requests: All (method, path) received.
        uploaded: Files that were committed, by name.
    """

    def __init__(self):
        self.repositories = {}
        self.commits = {}
        self.fault = lambda method, path: None
        self.requests = []
        self.uploaded = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                hub.answer(self)

            def do_HEAD(self):
                hub.answer(self)

            def do_POST(self):
                hub.answer(self)

            def log_message(self, *ignored):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        path = unquote(urlparse(request.path).path)
        self.requests.append((request.command, path))
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else b""
        found = self.fault(request.command, path) or self.behave(request.command, path, body)
        status, headers, content = found
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if "Content-Length" not in headers:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(content)
        if headers.get("Connection") == "close":
            request.close_connection = True

    def behave(self, method, path, body):
        if method == "POST":
            return self.take(path, body)
        if path.startswith("/api/models/"):
            return self.describe(path.removeprefix("/api/models/"))
        repository, _, rest = path.removeprefix("/").partition("/resolve/")
        files = self.repositories.get(repository)
        if files is None:
            return error(404, "RepoNotFound")
        name = rest.partition("/")[2]
        if name not in files:
            return error(404, "EntryNotFound", **{"X-Repo-Commit": self.commit(repository)})
        return self.serve(repository, files[name], large=name.endswith((".safetensors", ".ckpt")))

    def commit(self, repository):
        return self.commits.get(repository, COMMIT)

    def describe(self, rest):
        if "/tree/" in rest:
            return self.list_files(*rest.split("/tree/"))
        repository, _, revision = rest.partition("/revision/")
        files = self.repositories.get(repository)
        if files is None:
            return error(404, "RepoNotFound")
        if revision not in ("", "main", "v1", self.commit(repository)):
            return error(404, "RevisionNotFound")
        siblings = [{"rfilename": name} for name in files]
        facts = {"id": repository, "sha": self.commit(repository), "siblings": siblings}
        return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()

    def list_files(self, repository, commit):
        if commit != self.commit(repository):
            return error(404, "RevisionNotFound")
        files = [
            {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
            for name, content in self.repositories[repository].items()
        ]
        return 200, {"Content-Type": "application/json"}, json.dumps(files).encode()

    def serve(self, repository, content, *, large):
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        etag = hashlib.sha256(content).hexdigest() if large else blob
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit(repository)}
        return 200, headers, content

    def take(self, path, body):
        """Take an upload; small files are inside the commit, in base64."""
        kind = {"Content-Type": "application/json"}
        if path == "/api/repos/create":
            stated = json.loads(body)
            return (
                200,
                kind,
                json.dumps(
                    {"url": f"{self.url}/{stated['organization']}/{stated['name']}"}
                ).encode(),
            )
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            answer = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in files
            ]
            return 200, kind, json.dumps({"files": answer}).encode()
        if "/commit/" in path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.uploaded[entry["value"]["path"]] = content
            repository = path.removeprefix("/api/models/").partition("/commit/")[0]
            done = {"commitUrl": f"{self.url}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
            return 200, kind, json.dumps(done).encode()
        return 200, kind, b"{}"
