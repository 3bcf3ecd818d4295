"""Who may ask a verifier: tokens made here with keys of our own, checked as in a pod."""

import base64
import hmac
import json
import os
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kernelverify.auth import Guard, RefusedError

ISSUER, AUDIENCE = "https://cluster.example", "kernelsearch-verifier"
SUBJECT = "system:serviceaccount:team:demo-runner"


@pytest.fixture
def key():
    return ec.generate_private_key(ec.SECP256R1())


def publish(file, **keys):
    documents = []
    for identity, each in keys.items():
        document = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(each.public_key()))
        documents.append({**document, "kid": identity, "alg": "ES256", "use": "sig"})
    file.write_text(json.dumps({"keys": documents}))
    os.utime(file, ns=(time.time_ns(), time.time_ns()))


@pytest.fixture
def guard(tmp_path, key):
    publish(tmp_path / "jwks.json", k1=key)
    (tmp_path / "namespaces").write_text("own\nteam")
    return Guard(tmp_path / "jwks.json", ISSUER, AUDIENCE, tmp_path / "namespaces")


def token(key, identity="k1", **changed):
    claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": SUBJECT, "exp": time.time() + 60, **changed}
    signed = jwt.encode({k: v for k, v in claims.items() if v is not None}, key, "ES256", headers={"kid": identity})
    return f"Bearer {signed}"


def test_a_runners_token_names_its_client(guard, key):
    assert guard.client(token(key)) == SUBJECT


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"iss": "https://other.example"}, "issuer"),
        ({"aud": ["kubernetes"]}, "udience"),
        ({"exp": time.time() - 60}, "expired"),
        ({"exp": None}, "exp"),
        ({"sub": "system:serviceaccount:elsewhere:x"}, "allowedNamespaces"),
        ({"sub": "admin"}, "allowedNamespaces"),
        ({"sub": "system:serviceaccount:team2:team"}, "allowedNamespaces"),
    ],
)
def test_any_other_token_is_refused(guard, key, changed, said):
    with pytest.raises(RefusedError, match=said):
        guard.client(token(key, **changed))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer not.a.token", "Bearer x"])
def test_what_is_no_token_is_refused(guard, header):
    with pytest.raises(RefusedError):
        guard.client(header)


def test_a_token_signed_by_somebody_else_is_refused(guard):
    with pytest.raises(RefusedError, match="Signature"):
        guard.client(token(ec.generate_private_key(ec.SECP256R1())))


def test_an_unsigned_token_is_refused(guard):
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": time.time() + 60}
    unsigned = jwt.encode(claims, None, "none", headers={"kid": "k1"})

    with pytest.raises(RefusedError):
        guard.client(f"Bearer {unsigned}")


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(guard, key):
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": int(time.time()) + 60}
    parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in (header, claims)]
    proof = base64.urlsafe_b64encode(hmac.digest(pem, b".".join(parts), "sha256")).rstrip(b"=")

    with pytest.raises(RefusedError, match="not allowed"):
        guard.client(f"Bearer {b'.'.join([*parts, proof]).decode()}")


def test_a_new_key_is_known_as_soon_as_the_file_has_it(guard, key):
    second = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(RefusedError, match="not known here yet"):
        guard.client(token(second, "k2"))

    publish(guard.file, k1=key, k2=second)

    assert guard.client(token(second, "k2")) == SUBJECT
    assert guard.client(token(key)) == SUBJECT


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": []}'])
def test_unreadable_keys_admit_nobody(tmp_path, key, text):
    file = tmp_path / "jwks.json"
    file.write_text(text)

    with pytest.raises(RefusedError):
        Guard(file, ISSUER, AUDIENCE, tmp_path / "namespaces").client(token(key))


def test_a_namespace_is_admitted_as_soon_as_the_file_has_it(guard, key):
    newcomer = token(key, sub="system:serviceaccount:later:demo-runner")
    with pytest.raises(RefusedError, match="allowedNamespaces"):
        guard.client(newcomer)

    guard.namespaces.write_text("team\nlater")

    assert guard.client(newcomer) == "system:serviceaccount:later:demo-runner"


def test_without_the_list_of_namespaces_nobody_is_admitted(guard, key):
    guard.namespaces.unlink()

    with pytest.raises(RefusedError, match="cannot be read"):
        guard.client(token(key))
