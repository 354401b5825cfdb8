"""What the tests of the server's API share: a server that segments, an image, a server in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from ClassScaleSegLib.server.offers import Offers
from live_server import Api, live_server

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources" / "SampleData" / "toy-120.nrrd"
FAST = {"options": {"mirroring": False, "step": 1}}


@pytest.fixture(scope="module")
def offers() -> Offers:
    return Offers(["toy-120"])


@pytest.fixture(scope="module")
def server(tmp_path_factory, offers):
    with live_server(tmp_path_factory.mktemp("server"), offers) as api:
        yield api


@pytest.fixture
def api(server):
    """The server of all tests that do not need another one. Each leaves it empty."""
    yield server
    assert server.files() == []


@pytest.fixture
def image() -> bytes:
    """An image that takes a second."""
    small = sitk.ReadImage(str(SAMPLE))[20:60, 20:60, 20:60]
    return as_nrrd(small)


def as_nrrd(image: sitk.Image) -> bytes:
    file = Path(os.environ["PYTEST_FILES"], "image.nrrd")
    sitk.WriteImage(image, file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_FILES", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(folder: Path, *more: str) -> tuple[subprocess.Popen, Api]:
    """Start the command as a process of its own."""
    command = [sys.executable, "-m", "ClassScaleSegLib", "serve", "--folder", str(folder), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "ClassScaleSeg")}
    process = subprocess.Popen(
        [*command, "--models", "toy-120", "--devices", "cpu", "--threads", "1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    line = process.stdout.readline()
    assert "serves toy-120 at http" in line
    return process, Api(line.split()[-1], folder)


def self_signed(folder: Path, hours: float = 24) -> tuple[Path, Path]:
    """Write a key, and a certificate of 127.0.0.1 that it has signed."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "key.pem", folder / "certificate.pem"
    form = serialization.PrivateFormat.PKCS8
    files[0].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    files[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return files
