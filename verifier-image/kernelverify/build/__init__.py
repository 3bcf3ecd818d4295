"""The compile service: content-addressed cache, allow-listed flags, sandboxed compilers. No torch in this process."""
