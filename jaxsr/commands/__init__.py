"""The sub-commands of `jaxsr`, one a file: its flags as a dataclass, its work as `run`."""
