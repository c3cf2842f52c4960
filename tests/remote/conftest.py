"""What tests of retries and of faults share: time that does not pass, and an endpoint that nobody trusts."""

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that anything in this process, botocore too, wanted to sleep; nobody does."""
    seconds: list[float] = []
    monkeypatch.setattr("tasks.remote.retries.time.sleep", seconds.append)
    return seconds


@pytest.fixture
def untrusted_endpoint(tmp_path):
    """URL of a TLS server on loopback with a certificate that it signed itself, and the handshakes it has begun."""
    handshakes: list[None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path / "certificate.pem"))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if stopping.is_set():
                        return
                    handshakes.append(None)
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        stopping = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", handshakes
        stopping.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()


def _self_signed(path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return path
