"""The sub-commands of `jaxsr`: a module each, with `run`, and modules that these share.

Their options are dataclasses in `options`; `jaxsr.cli.COMMANDS` lists both.
"""
