"""Train, resume and validate: python main.py --config=configs/quickstart.py --workdir=runs/a.

The same as `jaxsr train`; `--help` lists the options.
"""

import sys

from jaxsr import cli, runtime

if __name__ == '__main__':
  runtime.keep_freed_memory()
  cli.main(['train', *sys.argv[1:]])
