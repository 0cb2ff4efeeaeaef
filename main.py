"""Train, resume and validate: python main.py --config=configs/quickstart.py --workdir=runs/a.

The same as `jaxsr train`; `--help` lists the options.
"""

import sys

from jaxsr import cli

if __name__ == '__main__':
  sys.argv.insert(1, 'train')
  cli.main()
