"""What users write: pydantic models of the custom resources, and the generator of their CRDs.

Only pydantic and the standard library belong here. A field's attribute docstring is its CRD description, the text of
`kubectl explain` and the reference page: unit, default with its reason, what absence means.

`part` and `references` are the ground, `problem`, `model`, `verifiers`, `spec` and `status` the parts of a search,
`kernelsearch` the kind itself, `crd` the generator.
"""
