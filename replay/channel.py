"""Connections to a replay server."""

from typing import Any

import grpc

from classact.replay import certificate, protocol

# What the server or the network did: another try may cure it.
Unanswered = grpc.RpcError

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A server that is back is found within this time.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # One connection for each channel: the streams of several would share its flow control.
    ("grpc.use_local_subchannel_pool", 1),
    # Addresses within a cluster are not the proxy's business.
    ("grpc.enable_http_proxy", 0),
    # A host that vanished without a word is noticed; servers refuse more than one ping in five minutes.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
]


def connect(address: str, options: list[tuple[str, Any]] | None = None) -> grpc.Channel:
    """Returns a channel to "host:port" or "unix:/path"; connects when it is used, and again whenever needed.

    Over TCP it shows the key of this process's run, and talks to a server that has it too.

    Args:
        address: of the server.
        options: further ones of gRPC.

    Raises:
        OSError, ValueError: over TCP, if the key cannot be read or this process was told of none.
    """
    options = _OPTIONS + (options or [])
    if address.startswith("unix:"):
        return grpc.insecure_channel(address, options)
    mine = certificate.of_this_process()
    shown = grpc.ssl_channel_credentials(mine.certificate, mine.key, mine.certificate)
    return grpc.secure_channel(
        address, shown, [*options, ("grpc.ssl_target_name_override", certificate.NAME)]
    )


def stream(channel: grpc.Channel, method: str) -> Any:
    """A method of two streams, of serialised messages in both directions."""
    return channel.stream_stream(protocol.SERVICE + method, request_serializer=None)


def reason(error: grpc.RpcError) -> str:
    """What went wrong, in one line."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if code is None or details is None:
        return str(error) or type(error).__name__
    return f"{code().name}: {' '.join((details() or '').split())[:300]}"
