"""What stands on a laptop for what only a cluster has: ConfigMaps, Secrets, model servers, data sets.

    configMapRef {name, key}    the file CONFIG_DIR/<name>/<key>                (--config-dir)
    Secret's key                the variable KERNELSEARCH_SECRET_<NAME>_<KEY>
    serverRef, serve (model)    a URL                                           (--model-url)
    poolRef                     a URL, or several                               (--verifier-url)
    kernelBench.source.url      a directory

What has no substitute is refused with the field and the flag that would help.
"""

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.problem import KernelBench, Problem
from kernelsearch.api.references import KeyRef
from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelsearch.clients.model import Endpoint, Key
from kernelverify_api.request import MAX_SOURCE

DEFAULT_KEY = KeyRef(name="model", key="api-key")
"""Where the API key of a `--model-url` is looked for, when the manifest names no Secret."""


@dataclass(frozen=True)
class Substitutes:
    """What the user gave for what is missing here."""

    config_dir: Path | None = None
    model_url: str | None = None
    model_name: str | None = None
    verifier_urls: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)


def reference(problem: Problem, given: Substitutes) -> str:
    """Text of the reference. Raises InvalidManifestError."""
    if problem.inline is not None:
        return problem.inline.reference
    if problem.config_map_ref is not None:
        return _of_config_map(problem.config_map_ref, given.config_dir, "spec.problem.configMapRef")
    if problem.kernel_bench is None:
        raise AssertionError("the model admits exactly one source")
    return _of_kernel_bench(problem.kernel_bench)


def endpoint(search: KernelSearch, given: Substitutes) -> Endpoint:
    """Where the model is. Raises InvalidManifestError."""
    model, name = search.spec.model, given.model_name or search.spec.model.name
    if given.model_url is not None:
        named = model.endpoint.api_key_secret_ref if model.endpoint else None
        key = _key_if_there(named or DEFAULT_KEY, given.environment)
        return _endpoint("--model-url", given.model_url, name, key)
    if model.endpoint is None:
        field, value = ("serve", "preset") if model.serve else ("serverRef", "name")
        asked = getattr(model.serve or model.server_ref, value)
        raise _refused(f"spec.model.{field}", f"names {asked!r}, which only a cluster has; give --model-url URL for it")
    ref = model.endpoint.api_key_secret_ref
    key = _key(ref, "spec.model.endpoint.apiKeySecretRef", given.environment) if ref is not None else None
    ca = model.endpoint.ca_config_map_ref
    pem = _certificates(ca, given.config_dir) if ca is not None else None
    return _endpoint("spec.model.endpoint", model.endpoint.url, name, key, pem, model.endpoint.insecure)


def verifier_urls(search: KernelSearch, given: Substitutes) -> tuple[str, ...]:
    """Verifiers that run already; none means that one is to be started here. Raises InvalidManifestError."""
    pool = search.spec.verifiers.pool_ref
    if pool is not None and not given.verifier_urls:
        raise _refused(
            "spec.verifiers.poolRef",
            f"names the pool {pool.name!r}, which only a cluster has; give --verifier-url URL for it, "
            "or write serve: {device: cpu} to start a verifier here",
        )
    for url in given.verifier_urls:
        if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
            raise _refused("--verifier-url", f"is {url!r}; write it with scheme and host, as http://HOST:PORT")
    return given.verifier_urls


def variable(ref: KeyRef) -> str:
    """The environment variable that stands for a Secret's key."""
    return "KERNELSEARCH_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{ref.name}_{ref.key}".upper())


def _endpoint(
    field: str, url: str, name: str, key: Key | None = None, pem: str | None = None, insecure: bool = False
) -> Endpoint:
    try:
        return Endpoint(url=url, model=name, api_key=key, ca_pem=pem, insecure=insecure)
    except ValueError as error:
        raise _refused(field, str(error)) from error


def _key(ref: KeyRef, field: str, environment: Mapping[str, str]) -> Key:
    found = _key_if_there(ref, environment)
    if found is None:
        raise _refused(
            field,
            f"names key {ref.key!r} of the Secret {ref.name!r}, which only a cluster has; "
            f"set it in the environment: export {variable(ref)}=...",
        )
    return found


def _key_if_there(ref: KeyRef, environment: Mapping[str, str]) -> Key | None:
    value = environment.get(variable(ref), "").strip()
    return (lambda: value) if value else None


def _of_config_map(ref: KeyRef, folder: Path | None, field: str) -> str:
    if folder is None:
        raise _refused(
            field,
            f"names the ConfigMap {ref.name!r}, which only a cluster has; "
            f"give --config-dir DIR with its text in DIR/{ref.name}/{ref.key}",
        )
    return _read(folder / ref.name / ref.key, field, f"put the text of key {ref.key!r} there")


def _certificates(ref: KeyRef, folder: Path | None) -> str:
    field = "spec.model.endpoint.caConfigMapRef"
    pem = _of_config_map(ref, folder, field)
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError) as error:
        raise _refused(
            field, f"holds no certificates in PEM ({error}); write -----BEGIN CERTIFICATE----- ..."
        ) from error
    return pem


def _of_kernel_bench(asked: KernelBench) -> str:
    field = "spec.problem.kernelBench.source.url"
    url = asked.source.url.removeprefix("file://")
    if "://" in url:
        raise _refused(field, f"is {url!r}; on this machine write the directory of a KernelBench checkout")
    for root in (Path(url), Path(url) / "KernelBench"):
        if found := sorted((root / f"level{asked.level}").glob(f"{asked.id}_*.py")):
            return _read(found[0], field, "make it readable")
    raise _refused(
        field,
        f"is {url!r}, and there is no level{asked.level}/{asked.id}_*.py in it; "
        "write the directory that holds level1/, level2/, ..., or another level and id",
    )


def _read(path: Path, field: str, remedy: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _refused(
            field, f"stands for the file {path}, which cannot be read ({error.strerror}); {remedy}"
        ) from error
    except UnicodeDecodeError as error:
        raise _refused(field, f"stands for the file {path}, which is no UTF-8 text; save it as UTF-8") from error
    if not text.strip() or len(text) > MAX_SOURCE:
        raise _refused(
            field, f"stands for {path} with {len(text)} characters; at least 1 and at most {MAX_SOURCE} will do"
        )
    return text


def _refused(field: str, message: str) -> InvalidManifestError:
    return InvalidManifestError(Fault(field, message))
