"""Who is asked for kernels: a model behind an OpenAI-compatible API, reached in one of three ways."""

from typing import Annotated, ClassVar

from pydantic import Field

from kernelsearch.api.part import MODEL, UP_TO_ONE, UP_TO_TWO, Part, Url
from kernelsearch.api.references import KeyRef, ObjectRef
from kernelsearch.api.workload import ModelWorkload


class Endpoint(Part):
    """A server that runs already."""

    url: Url
    """Base URL of its OpenAI-compatible API, usually ending in `/v1`."""
    api_key_secret_ref: KeyRef | None = None
    """Where the API key is. Absent: the server asks for none. With `kernelsearch run -f`, the key is read from the
    environment variable `KERNELSEARCH_SECRET_<NAME>_<KEY>`."""
    ca_config_map_ref: KeyRef | None = None
    """Certificates (PEM) that the server's own must be signed by. Absent: the system's."""
    insecure: bool = False
    """Do not verify the server's certificate. Default false; true lets anybody in between read the API key."""


class ModelServe(ModelWorkload):
    """A ModelServer owned by this search: it starts with the search, has its name, and goes with it."""


class Sampling(Part):
    """How the model draws its tokens."""

    temperature: Annotated[str, Field(pattern=UP_TO_TWO, max_length=6)] = "0.6"
    """Temperature, from 0 to 2. Default 0.6, DeepSeek's advice for R1: below 0.5 it repeats itself, above 0.7 it
    rambles."""
    top_p: Annotated[str, Field(pattern=UP_TO_ONE, max_length=6)] = "0.95"
    """Nucleus sampling, from 0 to 1. Default 0.95, DeepSeek's advice for R1."""
    max_tokens: int = Field(default=32768, ge=256, le=1_048_576)
    """Tokens of one answer at most, thought included. Default 32768: below 16384 R1's thought is often cut off before
    its answer begins."""


class Model(Part):
    """Who is asked for kernels. Exactly one of `endpoint`, `serverRef` and `serve` says where the model is."""

    one_of: ClassVar = ("endpoint", "serverRef", "serve")

    name: Annotated[str, Field(pattern=MODEL, max_length=253)]
    """The model's name as its server lists it, such as `deepseek-ai/DeepSeek-R1-0528`."""
    endpoint: Endpoint | None = None
    """A server that runs already, here or elsewhere."""
    server_ref: ObjectRef | None = None
    """A ModelServer that other searches may use too."""
    serve: ModelServe | None = None
    """A ModelServer owned by this search."""
    sampling: Sampling = Sampling()
    """How tokens are drawn; the defaults suit DeepSeek-R1."""
