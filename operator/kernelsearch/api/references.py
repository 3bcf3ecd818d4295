"""References from a custom resource to other objects, always by name, in the same namespace unless a field says so."""

from kernelsearch.api.part import Key, Namespace, Object, Part


class KeyRef(Part):
    """One key of a ConfigMap or Secret in the same namespace."""

    name: Object
    """Name of the ConfigMap or Secret."""
    key: Key
    """The key in it."""


class ObjectRef(Part):
    """One of our shared objects."""

    name: Object
    """Name of the object."""
    namespace: Namespace = ""
    """Its namespace; empty (the default) means the search's own. Another one is used only where the object's
    `allowedNamespaces` names this one."""


class SecretRef(Part):
    """A whole Secret in the same namespace."""

    name: Object
    """Name of the Secret. Its keys become environment variables of the storage library."""
