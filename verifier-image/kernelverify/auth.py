"""Who may ask a verifier on a cluster: holders of a ServiceAccount token that the cluster issued for verifiers.

Checked offline, with the cluster's public keys from a mounted file: a verifier reaches nobody, the API server included.
The audience is one that the API server itself does not accept, so a token seen here opens nothing else.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

ALGORITHMS = ("RS256", "ES256", "ES384", "EdDSA")
LEEWAY_S = 10
"""Clocks of nodes differ."""
SUBJECT = "system:serviceaccount:"


class RefusedError(Exception):
    """The request shows no token that admits it. The message says why, and holds nothing secret."""


@dataclass
class Guard:
    """Admits by signature, issuer, expiry, audience and namespace."""

    file: Path
    """A JSON Web Key Set. Read anew when it changes: keys are rotated."""
    issuer: str
    audience: str
    namespaces: Path
    """Names, one a line. Read for each request: who is admitted may change while searches run."""
    _keys: dict[str, Any] = field(default_factory=dict)
    _read: tuple[int, int] = (0, 0)

    def client(self, header: str) -> str:
        """The `sub` of the token: whose turn it is. Raises RefusedError."""
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusedError("no token; send Authorization: Bearer TOKEN of a ServiceAccount")
        try:
            key = self._key(jwt.get_unverified_header(token).get("kid", ""))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise RefusedError(f"the token is not valid here: {error}") from error
        return self._admitted(str(claims["sub"]))

    def _admitted(self, subject: str) -> str:
        namespace = subject.removeprefix(SUBJECT).partition(":")[0] if subject.startswith(SUBJECT) else ""
        if namespace not in self._allowed():
            raise RefusedError(f"{subject} is of a namespace that this pool does not admit (allowedNamespaces)")
        return subject

    def _allowed(self) -> list[str]:
        try:
            return self.namespaces.read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise RefusedError(f"the admitted namespaces cannot be read: {type(error).__name__}") from error

    def _key(self, identity: str) -> Any:
        self._refresh()
        if identity not in self._keys:
            raise RefusedError("the token is signed with a key that is not known here yet; try again")
        return self._keys[identity]

    def _refresh(self) -> None:
        try:
            stat = self.file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp == self._read:
                return
            found = jwt.PyJWKSet.from_dict(json.loads(self.file.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError) as error:
            raise RefusedError(f"the cluster's keys cannot be read: {type(error).__name__}") from error
        self._keys = {str(key.key_id): key.key for key in found.keys}
        self._read = stamp
