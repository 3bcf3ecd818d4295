"""UNTRUSTED: what the candidate's process runs. It loads, calls and returns raw outputs; it decides nothing.

Imports torch, triton, the standard library and the leaves `kernelverify.ipc`, `kernelverify.sandbox` only. Whatever
it reports may be forged by the candidate, so nothing it says counts except output bytes, which the referee copies.
"""
