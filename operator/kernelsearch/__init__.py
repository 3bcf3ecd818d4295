"""KernelSearch: a reasoning model writes GPU kernels until a deadline; a verifier judges each one.

Here stand the search loop, its clients, the custom resources' models, the reports and the operator. The
verifier is another package, `kernelverify`, in another image; only its wire contract, `kernelverify_api`, is shared.
"""

__version__ = "0.1.0"
