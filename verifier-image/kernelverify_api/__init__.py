"""The wire contract of the verifier service, version 1: what is asked (`request`) and what is answered (`report`).

Owned by the side that serves it, read by every client. Only pydantic models and closed enums belong here: no
behaviour, no HTTP, no torch. A field is added, never changed or removed, within `schema: 1`.
"""
