"""Adapters that satisfy the search's ports with real services: the model over the OpenAI API, the verifier over HTTP.

Library errors do not leak from here: they become the `InfrastructureError`s of `kernelsearch.search.ports`.
"""
