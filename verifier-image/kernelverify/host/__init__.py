"""Trusted: the referee. Holds inputs, references, seeds, the comparison and the clock that counts.

Never executes candidate code and never imports `kernelverify.guest`. `verdict` imports no torch, so that the service
process may use it.
"""
