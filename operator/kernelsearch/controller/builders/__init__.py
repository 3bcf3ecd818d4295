"""Pure: from a spec to the manifest of one child each. No decision about whether a child should exist is made here."""
