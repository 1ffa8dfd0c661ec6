"""Certificates made by the openssl program, under the names of trustme.

For interpreters that have no trustme: it needs cryptography, which is compiled, and has
no wheel for each of them.  What our tests call is here, and nothing more.
"""

from __future__ import annotations

import ipaddress
import ssl
import subprocess
import tempfile
from os import PathLike
from pathlib import Path

__all__ = ["CA", "Blob", "LeafCert"]

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Blob:
    """Data in PEM."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def bytes(self) -> bytes:
        return self._data

    def write_to_path(self, path: str | PathLike[str], append: bool = False) -> None:
        with open(path, "ab" if append else "wb") as file:
            file.write(self._data)


class LeafCert:
    """A certificate, and its key."""

    def __init__(self, key: bytes, certificate: bytes) -> None:
        self.private_key_pem = Blob(key)
        self.cert_chain_pems = [Blob(certificate)]

    def configure_cert(self, context: ssl.SSLContext) -> None:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.private_key_pem.bytes() + self.cert_chain_pems[0].bytes())
            file.flush()
            context.load_cert_chain(file.name)


def make(name: str, extensions: list[str], *options: str) -> tuple[bytes, bytes]:
    """Return a new key, and the certificate that openssl makes for it."""
    added = [word for text in extensions for word in ("-addext", text)]
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = Path(directory, "key.pem"), Path(directory, "cert.pem")
        subprocess.run(
            ["openssl", "req", "-x509", *KEY, "-keyout", key, "-out", certificate,
             "-days", "2", "-subj", f"/CN={name}", *added, *options],
            check=True,
            capture_output=True,
        )  # fmt: skip
        return key.read_bytes(), certificate.read_bytes()


def alternative(identity: str) -> str:
    """Return a name as the extension for names of subjects has it."""
    if "@" in identity:
        return f"email:{identity}"
    try:
        return f"IP:{ipaddress.ip_address(identity)}"
    except ValueError:
        return f"DNS:{identity}"


class CA:
    """An authority of this process."""

    def __init__(self) -> None:
        rights = ["keyUsage=critical,keyCertSign,cRLSign"]
        self._key, certificate = make("authority of tests", rights)
        self.cert_pem = Blob(certificate)

    def issue_cert(self, *identities: str, common_name: str | None = None) -> LeafCert:
        names = ",".join(map(alternative, identities))
        extensions = [
            f"subjectAltName={names}",
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            "authorityKeyIdentifier=keyid",
        ]
        with tempfile.TemporaryDirectory() as directory:
            key, certificate = Path(directory, "key.pem"), Path(directory, "cert.pem")
            key.write_bytes(self._key)
            certificate.write_bytes(self.cert_pem.bytes())
            signer = ("-CA", str(certificate), "-CAkey", str(key))
            name = common_name or "certificate of tests"
            return LeafCert(*make(name, extensions, *signer))

    def configure_trust(self, context: ssl.SSLContext) -> None:
        context.load_verify_locations(cadata=self.cert_pem.bytes().decode())
