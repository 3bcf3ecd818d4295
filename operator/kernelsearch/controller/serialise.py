r"""The one way in which a manifest becomes the bytes of a request.

The API server reads an apply as YAML, and its parser refuses what JSON admits: surrogate pairs such as
``\ud83d\ude80`` (so `ensure_ascii` would make one emoji in a kernel's comment fail every status write), and C1
control characters, DEL and U+FFFE/U+FFFF as they are; it takes U+2028 and U+2029 for ends of lines, and drops a space
before them. So: UTF-8, with just those escaped. Tried against a real API server: an exact round trip.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

APPLY = "application/apply-patch+yaml; charset=utf-8"

_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")


class LoneSurrogateError(ValueError):
    """Text that is no Unicode; it has to be refused where it enters the system, not here."""


def yaml(manifest: Mapping[str, Any]) -> bytes:
    """JSON that is YAML too. Raises LoneSurrogateError."""
    text = json.dumps(manifest, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    escaped = _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    try:
        return escaped.encode()
    except UnicodeEncodeError as error:
        raise LoneSurrogateError(f"a lone surrogate at character {error.start} cannot be written") from error
