"""Certificates and kubeconfigs of a cluster that lives for minutes."""

import datetime as dt
import ipaddress
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.places import API_SERVICE_IP, NODE, NODE_IP

INSIDE = "https://127.0.0.1:6443"
API_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
)


@dataclass
class Authority:
    """Signs everything, and writes it into one folder."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-cluster-ca")])
        self.name, self.identifier = name, x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        made = self._begin(name, self.key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        made = made.add_extension(_usage(signs=True), critical=True)
        self.pem = made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self._put("ca.crt", self.pem)

    def issue(
        self, name: str, common: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> tuple[bytes, bytes]:
        """Certificate and key, as files too. With hosts it is a server's, otherwise a client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject = x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, common)])
        use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
        made = self._begin(subject, key).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_usage(signs=False), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if hosts:
            made = made.add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
        pem = made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        self._put(f"{name}.crt", pem)
        self._put(f"{name}.key", _pem(key))
        return pem, _pem(key)

    def kubeconfig(self, name: str, server: str, identity: tuple[bytes, bytes]) -> None:
        certificate, key = identity
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {"name": "test", "cluster": {"server": server, "certificate-authority-data": _base64(self.pem)}}
            ],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        self._put(f"{name}.kubeconfig", json.dumps(config, indent=1).encode())

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        """With both key identifiers: Python 3.13 and later verifies strictly and refuses certificates without."""
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self.identifier), critical=False
            )
        )

    def _put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)


def make(folder: Path, port: int) -> None:
    """Everything that the components of a cluster need, whose API is relayed to a port of the machine's 127.0.0.1."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority(folder)
    authority.issue("apiserver", "kube-apiserver", hosts=(*API_NAMES, "127.0.0.1", API_SERVICE_IP, NODE_IP))
    authority.issue("kubelet-server", NODE, hosts=(NODE, NODE_IP))
    authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    admin = authority.issue("admin", "admin", ("system:masters",))
    authority.kubeconfig("admin", f"https://127.0.0.1:{port}", admin)
    authority.kubeconfig("admin-inside", INSIDE, admin)
    for name, common, groups in (
        ("kcm", "system:kube-controller-manager", ()),
        ("scheduler", "system:kube-scheduler", ()),
        ("proxy", "system:kube-proxy", ()),
        ("kubelet", f"system:node:{NODE}", ("system:nodes",)),
    ):
        authority.kubeconfig(name, INSIDE, authority.issue(name, common, groups))
    tokens = ec.generate_private_key(ec.SECP256R1())
    public = tokens.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    authority._put("sa.key", _pem(tokens))
    authority._put("sa.pub", public)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
