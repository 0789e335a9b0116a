# ruff: noqa
# mypy: ignore-errors
"""Stand-in for Launchpad's Courier over grpcio, for any Python: what launchpad.nodes.courier uses of it.

Prototype. Requests and answers are msgpack of plain values (None, numbers, str, bytes, lists, dicts),
so reaching the port is not running code. Calls in flight when a server dies are made again.
"""

import datetime
import threading
import time
import traceback
from concurrent import futures

import grpc
import msgpack


class StatusNotOk(Exception):
    """A call failed."""


_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


def _pack(value) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def _unpack(data):
    return msgpack.unpackb(data, raw=False, strict_map_key=False, use_list=False)


class Server:
    def __init__(self, name=None, port=None, thread_pool_size=16):
        self._port, self._methods = port, {}
        # Threads are made as they are needed.
        self._pool = futures.ThreadPoolExecutor(max(thread_pool_size, 64))
        self._server = grpc.server(self._pool, options=_OPTIONS)

    port = property(lambda self: self._port)
    address = property(lambda self: f"localhost:{self._port}")

    def Bind(self, name, func):
        self.BindHandler(name, func)

    def BindHandler(self, name, func):
        def handle(request, context):
            try:
                args, kwargs = _unpack(request)
                return _pack(func(*args, **kwargs))
            except Exception:
                context.abort(grpc.StatusCode.INTERNAL, traceback.format_exc()[-4000:])

        self._methods[name] = grpc.unary_unary_rpc_method_handler(handle)

    def Start(self):
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rpc", self._methods),))
        self._server.add_insecure_port(f"[::]:{self._port}")
        self._server.start()

    def Stop(self):
        self._server.stop(0.5).wait()

    def Join(self):
        self._server.wait_for_termination()


class _Futures:
    def __init__(self, client):
        self._client = client

    def __getattr__(self, method):
        def call(*args, **kwargs):
            return self._client._start(method, args, kwargs)

        return call


class Client:
    def __init__(self, server_address, compress=False, call_timeout=None, wait_for_ready=True):
        if isinstance(call_timeout, datetime.timedelta):
            call_timeout = call_timeout.total_seconds()
        self._init_args = (server_address, compress, call_timeout or None, wait_for_ready)
        self._timeout, self._wait = call_timeout or None, wait_for_ready
        self._channel = grpc.insecure_channel(str(server_address), options=_OPTIONS)
        self._calls = {}

    def __reduce__(self):
        return self.__class__, self._init_args

    @property
    def address(self):
        return self._init_args[0]

    @property
    def futures(self):
        return _Futures(self)

    def _start(self, method, args, kwargs):
        # A daemon thread, so that a server that dies is asked again and a caller may leave it: those of
        # an executor are waited for at exit, and one pending call then hangs the process for ever.
        found = futures.Future()

        def work():
            try:
                answer = self._call(method, args, kwargs)
            except BaseException as error:
                if not found.cancelled():
                    found.set_exception(error)
            else:
                if not found.cancelled():
                    found.set_result(answer)

        threading.Thread(target=work, daemon=True).start()
        return found

    def _call(self, method, args, kwargs):
        if method not in self._calls:
            self._calls[method] = self._channel.unary_unary(f"/rpc/{method}")
        call, request = self._calls[method], _pack((args, kwargs))
        deadline = time.monotonic() + self._timeout if self._timeout else None
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            try:
                return _unpack(call(request, timeout=left, wait_for_ready=self._wait))
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or not self._wait:
                    raise StatusNotOk(f"{error.code().name}: {error.details()}") from None
                time.sleep(0.2)

    def __getattr__(self, method):
        if method.startswith("_"):
            raise AttributeError(method)
        return lambda *args, **kwargs: self._call(method, args, kwargs)


def list_methods(client):
    return []
