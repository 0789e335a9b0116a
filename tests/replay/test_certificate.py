"""A run's certificate, judged by OpenSSL."""

import hashlib
import ssl

import pytest

from classact.replay import certificate


def context(purpose, identity, trusted, tmp_path):
    made = ssl.SSLContext(purpose)
    made.load_verify_locations(cadata=trusted.certificate.decode())
    made.verify_mode = ssl.CERT_REQUIRED
    # What later Pythons and OpenSSLs ask for by default.
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    file = tmp_path / "identity.pem"
    file.write_bytes(identity.certificate + identity.key)
    made.load_cert_chain(file)  # Fails unless the key is the certificate's.
    return made


def greeting(client, server, tmp_path):
    """Names that the two sides saw; each is (its identity, whom it trusts)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = context(ssl.PROTOCOL_TLS_CLIENT, *client, tmp_path).wrap_bio(
        to_client, to_server, server_hostname=certificate.NAME
    )
    answering = context(ssl.PROTOCOL_TLS_SERVER, *server, tmp_path).wrap_bio(
        to_server, to_client, server_side=True
    )
    done = set()
    while len(done) < 2:
        for side in (asking, answering):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    return [side.getpeercert()["subjectAltName"] for side in (asking, answering)]


@pytest.fixture(scope="module")
def identities():
    return [certificate.identity(hashlib.sha256(bytes([number])).digest()) for number in range(3)]


def test_both_sides_take_it(identities, tmp_path):
    for mine in identities:
        assert greeting((mine, mine), (mine, mine), tmp_path) == [(("DNS", certificate.NAME),)] * 2


def test_neither_side_takes_that_of_another_run(identities, tmp_path):
    mine, other, _ = identities
    with pytest.raises(ssl.SSLCertVerificationError):
        greeting((mine, mine), (other, mine), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        greeting((other, mine), (mine, mine), tmp_path)


def test_the_same_secret_makes_the_same_one_anywhere(identities):
    secret = hashlib.sha256(bytes([0])).digest()
    certificate.identity.cache_clear()
    assert certificate.identity(secret) == identities[0] != identities[1]
    assert "PRIVATE" not in repr(identities[0])


def test_a_short_secret_is_refused():
    with pytest.raises(ValueError, match="31 bytes: must be at least 32"):
        certificate.identity(bytes(31))
