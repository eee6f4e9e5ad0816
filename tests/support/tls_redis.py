"""A Redis server with TLS, and a certificate from an authority made for the test."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from support.redis_server import RedisServer, free_port, server_path


@dataclass(frozen=True, kw_only=True)
class TlsRedis:
    """The port with TLS, and the certificate of the authority that signed the server's."""

    port: int
    authority: Path


@contextmanager
def tls_redis() -> Iterator[TlsRedis]:
    """Skips the test if no ``redis-server`` here was built with TLS."""
    binary = _binary_with_tls()
    if binary is None:
        pytest.skip("no redis-server here was built with TLS; Debian's package redis-server is")
    with tempfile.TemporaryDirectory(prefix="ubert-tls-") as directory:
        authority, certificate, key = (Path(directory) / name for name in ("ca.pem", "cert.pem", "key.pem"))
        made = trustme.CA()
        issued = made.issue_cert("127.0.0.1")
        made.cert_pem.write_to_path(authority)
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        port = free_port()
        files = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority)
        options = ("--tls-port", port, "--tls-auth-clients", "no", *files)
        with RedisServer(*map(str, options), binary=binary):
            yield TlsRedis(port=port, authority=authority)


def _binary_with_tls() -> str | None:
    candidates = (server_path(), shutil.which("redis-server"))
    return next((binary for binary in candidates if binary is not None and _knows_tls(binary)), None)


def _knows_tls(binary: str) -> bool:
    # No server starts with this configuration; it complains about the first line that it does not know.
    refused = subprocess.run(
        [binary, "-"],
        input="tls-port 0\nno-such-directive 1\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "no-such-directive" in refused.stdout + refused.stderr
