"""A certificate for each run, made of its secret: what TLS asks for between hosts.

Python's `ssl` and gRPC speak TLS, but neither can make a certificate. This writes the one
kind that a run needs: self-signed, of an elliptic key (NIST P-256), good for both ends of a
connection. Whoever has the run's secret makes the same one, so nothing else has to be carried
to other hosts; who has it not can neither show the certificate nor be taken for the server.
All that guards a connection is done by OpenSSL and gRPC; here numbers are only multiplied,
once, where nobody can watch the time that it takes.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import hmac

from classact.calls import keys

NAME = "replay.classact"
"""Whom the certificate is for; clients ask for this name whatever the host is called."""

# The curve P-256 of FIPS 186-4: y² = x³ − 3x + b modulo _PRIME; _ORDER points, from _BASE.
_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_Point = tuple[int, int]

# Object identifiers, encoded: RFC 5480 and 5280.
_EC_KEY = bytes.fromhex("06072a8648ce3d0201")
_P256 = bytes.fromhex("06082a8648ce3d030107")
_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
_COMMON_NAME = bytes.fromhex("0603550403")
_BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
_ALTERNATIVE_NAME = bytes.fromhex("0603551d11")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a process shows of itself, and what it expects of others: the same.

    Attributes:
        certificate: PEM.
        key: PEM, of the private key; a secret.
    """

    certificate: bytes
    key: bytes = dataclasses.field(repr=False)


@functools.cache
def identity(secret: bytes) -> Identity:
    """Makes the run's identity: always the same from the same secret; takes some milliseconds.

    Args:
        secret: at least 32 bytes that only this run's processes know.

    Raises:
        ValueError: if the secret is shorter.
    """
    if len(secret) < 32:
        raise ValueError(f"a secret of {len(secret)} bytes: must be at least 32")
    private = _number(secret, b"classact replay key")
    public = _multiplied(private, _BASE)
    point = b"\x04" + _bytes32(public[0]) + _bytes32(public[1])
    certificate = _certificate(private, point)
    key = _sequence(
        _integer(1), _tagged(0x04, _bytes32(private)), _tagged(0xA0, _P256), _tagged(0xA1, _bits(point))
    )
    return Identity(_pem("CERTIFICATE", certificate), _pem("EC PRIVATE KEY", key))


def of_this_process() -> Identity:
    """The identity of the run whose keys this process has, see `calls.keys`.

    Raises:
        OSError, ValueError: if the keys cannot be read, or it was told of none.
    """
    found = keys.of_this_process()
    if found is None:
        raise ValueError(f"{keys.VARIABLE} is not set: it names the file with the run's keys")
    return identity(found.server_secret.encode())


def _certificate(private: int, point: bytes) -> bytes:
    """X.509, version 3, as RFC 5280 writes it down."""
    name = _sequence(_tagged(0x31, _sequence(_COMMON_NAME, _tagged(0x0C, NAME.encode()))))
    algorithm = _sequence(_ECDSA_SHA256)
    # A run's key ends with the run, whatever the hosts' clocks say.
    validity = _sequence(_tagged(0x18, b"20000101000000Z"), _tagged(0x18, b"21000101000000Z"))
    extensions = _sequence(
        _sequence(_BASIC_CONSTRAINTS, b"\x01\x01\xff", _tagged(0x04, _sequence(b"\x01\x01\xff"))),
        _sequence(_ALTERNATIVE_NAME, _tagged(0x04, _sequence(_tagged(0x82, NAME.encode())))),
    )
    contents = _sequence(
        _tagged(0xA0, _integer(2)),
        _integer(int.from_bytes(hashlib.sha256(point).digest()[:16], "big")),
        algorithm,
        name,
        validity,
        name,
        _sequence(_sequence(_EC_KEY, _P256), _bits(point)),
        _tagged(0xA3, extensions),
    )
    return _sequence(contents, algorithm, _bits(_signature(private, contents)))


def _signature(private: int, message: bytes) -> bytes:
    """ECDSA with SHA-256 (FIPS 186-4, 6.4), its one-time number made of key and message."""
    once = _number(_bytes32(private), b"once" + message)
    first = _multiplied(once, _BASE)[0] % _ORDER
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    second = pow(once, -1, _ORDER) * (digest + first * private) % _ORDER
    return _sequence(_integer(first), _integer(second))


def _number(secret: bytes, purpose: bytes) -> int:
    """A number from 1 to the order less 1 that nobody without the secret can tell."""
    made = b"".join(hmac.digest(secret, bytes([part]) + purpose, "sha256") for part in (1, 2))
    return int.from_bytes(made, "big") % (_ORDER - 1) + 1


def _multiplied(factor: int, point: _Point) -> _Point:
    """`factor` times a point of the curve, by doubling and adding."""
    product: _Point | None = None
    for bit in f"{factor:b}":
        if product is not None:
            product = _sum(product, product)
        if bit == "1":
            product = point if product is None else _sum(product, point)
    assert product is not None
    return product


def _sum(one: _Point, other: _Point) -> _Point:
    # A factor below the order never meets a point's own negative on the way.
    if one == other:
        slope = (3 * one[0] * one[0] - 3) * pow(2 * one[1], -1, _PRIME)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _PRIME)
    across = (slope * slope - one[0] - other[0]) % _PRIME
    return across, (slope * (one[0] - across) - one[1]) % _PRIME


def _bytes32(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _tagged(tag: int, contents: bytes) -> bytes:
    """A value of DER (ITU-T X.690): its tag, length and contents."""
    length = len(contents)
    if length < 0x80:
        return bytes([tag, length]) + contents
    size = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + length.to_bytes(size, "big") + contents


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _integer(number: int) -> bytes:
    # Signed: one whose top bit is set has a zero byte before it.
    return _tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _bits(contents: bytes) -> bytes:
    return _tagged(0x03, b"\x00" + contents)


def _pem(kind: str, contents: bytes) -> bytes:
    text = base64.b64encode(contents).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""]).encode()
