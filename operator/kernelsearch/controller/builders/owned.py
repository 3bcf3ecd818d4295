"""What `model.serve` and `verifiers.serve` stand for: a ModelServer and a VerifierPool that belong to one search."""

from kernelsearch.api.kernelsearch import KernelSearch
from kernelsearch.controller.builders import names
from kernelsearch.controller.manifest import Manifest


def model_server(owner: Manifest, search: KernelSearch) -> Manifest:
    """Named like the search."""
    serve = search.spec.model.serve
    spec = serve.model_dump(mode="json", by_alias=True, exclude_none=True) if serve else {}
    return names.child(
        owner, "ModelServer", search.metadata.name, names.MODEL, spec={**spec, "model": search.spec.model.name}
    )


def verifier_pool(owner: Manifest, search: KernelSearch) -> Manifest:
    """Named like the search."""
    serve = search.spec.verifiers.serve
    spec = serve.model_dump(mode="json", by_alias=True, exclude_none=True) if serve else {}
    return names.child(owner, "VerifierPool", search.metadata.name, names.VERIFIER, spec=spec)
