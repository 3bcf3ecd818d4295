"""From a manifest's text to a search that can run here: YAML, references, secrets, substitutions."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from kernelsearch.api import validation
from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.api.problem import Tf32
from kernelsearch.api.references import KeyRef
from kernelsearch.api.validation import Fault, InvalidManifestError
from kernelverify_api.request import Problem


class _Loader(yaml.SafeLoader):
    """Safe, and strict about keys given twice: the last one would win silently."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if isinstance(key, str) and key in seen:
                line = key_node.start_mark.line + 1
                raise InvalidManifestError((Fault(f"line {line}", f"{key} is given twice; keep one of them"),))
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(path: Path) -> KernelSearch:
    """Raises InvalidManifestError with every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidManifestError((Fault(str(path), f"cannot be read: {error}"),)) from error
    try:
        documents = [d for d in yaml.load_all(text, _Loader) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidManifestError((Fault(where, f"is no YAML: {problem}; check indentation and quotes"),)) from error
    if len(documents) != 1:
        fault = Fault(str(path), f"holds {len(documents)} documents; write exactly one KernelSearch")
        raise InvalidManifestError((fault,))
    return validation.read(documents[0])


def problem(search: KernelSearch, config_dir: Path | None) -> Problem:
    """The reference as it will be judged. Raises InvalidManifestError."""
    asked = search.spec.problem
    return Problem(
        source=_reference(search, config_dir),
        name=search.metadata.name,
        dtype=asked.dtype.value if asked.dtype else None,
        allow_tf32=asked.tf32 is Tf32.ALLOWED,
    )


def _reference(search: KernelSearch, config_dir: Path | None) -> str:
    asked = search.spec.problem
    if asked.inline is not None:
        return asked.inline.reference
    if asked.config_map_ref is not None:
        return config(asked.config_map_ref, config_dir, "spec.problem.configMapRef")
    bench = asked.kernel_bench
    assert bench is not None  # noqa: S101 - validation has seen to it that exactly one is given
    return _kernel_bench(bench.source.url, bench.level, bench.id)


def _kernel_bench(url: str, level: int, number: int) -> str:
    field = "spec.problem.kernelBench.source.url"
    folder = Path(url.removeprefix("file://")) / f"level{level}"
    if not url or "://" in url.removeprefix("file://"):
        raise _invalid(field, f"is {url!r}; on this machine write the folder of a KernelBench checkout")
    found = sorted(folder.glob(f"{number}_*.py"))
    if not found:
        raise _invalid(field, f"{folder} holds no {number}_*.py; write the folder that holds level1/, level2/, ...")
    return found[0].read_text(encoding="utf-8")


def config(ref: KeyRef, config_dir: Path | None, field: str) -> str:
    """A ConfigMap's key: on this machine a file `--config-dir/NAME/KEY`."""
    if config_dir is None:
        raise _invalid(field, f"names ConfigMap {ref.name}; give --config-dir DIR with DIR/{ref.name}/{ref.key}")
    path = config_dir / ref.name / ref.key
    if not path.is_file():
        raise _invalid(field, f"names {ref.name}/{ref.key}; there is no file {path}")
    return path.read_text(encoding="utf-8")


def secret_variable(ref: KeyRef) -> str:
    """The environment variable that stands for a Secret's key."""
    return "KERNELSEARCH_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{ref.name}_{ref.key}".upper())


def secret(ref: KeyRef | None, field: str, environment: Mapping[str, str] | None = None) -> Callable[[], str] | None:
    """Reads the key when asked; refuses at once when it is not there."""
    if ref is None:
        return None
    values, variable = os.environ if environment is None else environment, secret_variable(ref)
    if not values.get(variable, "").strip():
        raise _invalid(field, f"names Secret {ref.name}; set its key {ref.key} in the environment: {variable}=...")
    return values[variable].strip


def _invalid(field: str, message: str) -> InvalidManifestError:
    return InvalidManifestError((Fault(field, message),))
