"""The runner's side of the cluster: its own search, its checkpoint, its best kernel.

The pod that `builders.runner` makes is the contract:

    kernelsearch run --cluster NAMESPACE/NAME
    KERNELSEARCH_SEARCH_UID           which object of that name; a later one is none of this process's business
    KERNELSEARCH_MODEL_URL            base URL of the OpenAI API
    KERNELSEARCH_VERIFIER_SERVICE     host:port of the headless Service whose addresses are the verifiers
    POD_UID                           this pod's, for fencing
    /var/run/kernelsearch/model/api-key, model-ca/ca.crt, problem/<key>     where the spec names them
    /var/run/kernelsearch/verifier/token                                    projected, renewed by the kubelet
"""
