"""A small HTTP receiver that stands where an edge agent would: it keeps what it is sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """What came, by request. `answers`: statuses for the next requests, then 202 for ever."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, str, list[dict[str, object]]]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        receiver, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.startswith("/signals"):  # of the controllers; they get no plans
                    self._answer(200, {}, b'{"serial": 0, "plans": []}')
                    return
                with lock:
                    status, headers, text = (
                        receiver.answers.pop(0)
                        if receiver.answers
                        else (202, {}, b'{"accepted": 1, "duplicate": 0, "refused": 0}')
                    )
                    if status < 300:
                        token = self.headers["authorization"]
                        receiver.requests.append((self.path, token, json.loads(body)))
                self._answer(status, headers, text)

            def _answer(self, status: int, headers: dict[str, str], text: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Tests look at `requests`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def readings(self, lane: str = "") -> list[tuple[str, str, int, float]]:
        """All readings taken, in order of arrival: of the live lane, or of the one named."""
        wanted = f"/readings?lane={lane}" if lane else "/readings"
        return [
            (r["sensor"], r["kind"], r["time"], r["value"])  # type: ignore[misc]  # as the world writes them
            for path, _, batch in list(self.requests)
            if path == wanted
            for r in batch
        ]

    @contextmanager
    def serving(self) -> Iterator["Receiver"]:
        """While this lasts it answers."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
