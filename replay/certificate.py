"""A certificate for each run, made of its secret: what TLS asks for between hosts.

Self-signed, and good for both ends of a connection. Whoever has the run's secret makes the
same one, so nothing else has to be carried to other hosts; who has it not can neither show the
certificate nor be taken for the server.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from classact.calls import keys

NAME = "replay.classact"
"""Whom the certificate is for; clients ask for this name whatever the host is called."""

_CURVE = ec.SECP256R1()
_PURPOSE = b"classact replay key"
# A run's key ends with the run, whatever the hosts' clocks say.
_FROM, _UNTIL = datetime.datetime(2000, 1, 1), datetime.datetime(2100, 1, 1)


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
    # Half as long again as a key is, so that all numbers below the order are as likely.
    number = HKDF(hashes.SHA256(), length=48, salt=None, info=_PURPOSE).derive(secret)
    key = ec.derive_private_key(int.from_bytes(number, "big") % (_CURVE.group_order - 1) + 1, _CURVE)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(_certificate(key).public_bytes(serialization.Encoding.PEM), pem)


def of_this_process() -> Identity:
    """The identity of the run whose keys this process has, see `calls.keys`.

    Raises:
        OSError, ValueError: if the keys cannot be read, or it was told of none.
    """
    found = keys.of_this_process()
    if found is None:
        raise ValueError(f"{keys.VARIABLE} is not set: it names the file with the run's keys")
    return identity(found.server_secret.encode())


def server_context(identity: Identity) -> ssl.SSLContext:
    """Of connections that are accepted from whoever shows the same certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    return _with(context, identity)


def client_context(identity: Identity) -> ssl.SSLContext:
    """Of connections to whoever shows the same certificate; they are for `NAME`."""
    return _with(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), identity)


def _with(context: ssl.SSLContext, identity: Identity) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=identity.certificate.decode())
    context.set_alpn_protocols(["h2"])  # gRPC insists on it.
    # `ssl` takes a key from a file alone; this one is this user's, and gone at once.
    with tempfile.NamedTemporaryFile(prefix="classact-") as file:
        file.write(identity.certificate + identity.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    public = key.public_key()
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        # As the signature, a matter of the key: each process makes the certificate for itself.
        .serial_number(int.from_bytes(hashlib.sha256(point).digest()[:16], "big"))
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
