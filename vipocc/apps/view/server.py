"""A small web server for the 3D page. It listens on this machine only, so that it works through an SSH tunnel."""

from __future__ import annotations

import gzip
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vipocc.apps.view.page import View, shell
from vipocc.apps.view.scene import Scene
from vipocc.errors import UsageError, VipoccError

KEPT = 8
"""Scenes that stay in memory once they were made."""


class SceneServer(ThreadingHTTPServer):
    """Serves the page at `/` and scenes, made when they are asked for, at `/scene/<number>.json`."""

    daemon_threads = True

    def __init__(
        self,
        make: Callable[[int], Scene],
        count: int,
        title: str,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        view: View = "behind",
    ) -> None:
        """Listen on `host` and `port` (0: any free one).

        Raises:
            UsageError: the port is taken, or not allowed.
        """
        self._make, self.count, self.page = make, count, shell(title, count, view).encode()
        self._made: OrderedDict[int, bytes] = OrderedDict()
        self._one_at_a_time = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise UsageError(
                f"nothing can be served at {host}:{port} ({error.strerror or error})", fix="choose another --port"
            ) from None

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/"

    def scene(self, number: int) -> bytes:
        """Return a scene as compressed JSON; what the making raises passes through."""
        with self._one_at_a_time:  # networks and readers below are not meant for several threads
            if number not in self._made:
                text = json.dumps(self._make(number).as_dict(), separators=(",", ":"), allow_nan=False)
                self._made[number] = gzip.compress(text.encode(), compresslevel=1)
            self._made.move_to_end(number)
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
            return self._made[number]


class _Handler(BaseHTTPRequestHandler):
    server: SceneServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer the page, a scene, or why not."""
        path = self.path.partition("?")[0]
        if path == "/":
            return self._answer(200, "text/html; charset=utf-8", self.server.page)
        name, ending = path.removeprefix("/scene/").rpartition(".")[::2]
        if not (path.startswith("/scene/") and ending == "json" and name.isdecimal()) or int(name) >= self.server.count:
            return self._answer(404, "text/plain; charset=utf-8", b"there is nothing here")
        try:
            return self._answer(200, "application/json", self.server.scene(int(name)), coded=True)
        except VipoccError as error:
            return self._answer(500, "text/plain; charset=utf-8", str(error).encode())

    def _answer(self, code: int, kind: str, body: bytes, coded: bool = False) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if coded:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Stay silent: standard output is the user's."""
