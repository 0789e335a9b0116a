"""Servers on loopback: one of files with ranges, with faults when it is told to; and one that cuts."""

import contextlib
import http.server
import re
import socket
import socketserver
import threading
import time


class Served:
    """What a server has, and what it does.

    Attributes:
        files: contents by path.
        faults: what happens to the next requests for a shard's bytes: "cut" or a status; then they succeed.
        requests: (method, path, range) of those that came.
    """

    def __init__(self):
        self.files, self.faults, self.requests = {}, [], []
        self.late_seconds, self.ranges = 0.0, True
        self.url = ""


@contextlib.contextmanager
def serving():
    served = Served()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            served.requests.append((self.command, self.path, self.headers.get("Range")))
            time.sleep(served.late_seconds)
            shard = body and self.path.endswith(".tar")
            fault = served.faults.pop(0) if shard and served.faults else None
            content = served.files.get(self.path)
            if isinstance(fault, int) or content is None:
                self.send_response(fault or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, part = 200, content
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if wanted and served.ranges:
                first, last = map(int, wanted.groups())
                status, part = 206, content[first : last + 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            self.send_header("ETag", f'"{hash(content)}"')
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if body:
                self.wfile.write(part[: len(part) // 2] if fault == "cut" else part)
                if fault == "cut":
                    self.wfile.flush()
                    self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def cutting(host, port, after_bytes, late_seconds):
    """A server that passes all on to another one, late; yields (its URL, how many answers it cuts).

    While the list that it yields is not empty, an answer of more than so many bytes is cut
    there, and takes an entry out of it.
    """
    cuts = []

    class Passing(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection((host, port)) as other:
                up = threading.Thread(target=self.ask, args=(other,), daemon=True)
                up.start()
                answered = 0
                with contextlib.suppress(OSError):
                    while content := other.recv(1024):
                        answered += len(content)
                        if answered > after_bytes and cuts:
                            cuts.pop()
                            break
                        self.request.sendall(content)
                for each in (self.request, other):
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                up.join(10)

        def ask(self, other):
            with contextlib.suppress(OSError):
                while content := self.request.recv(65536):
                    time.sleep(late_seconds)
                    other.sendall(content)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Passing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", cuts
        server.shutdown()
