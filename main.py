"""Train, resume and validate: python main.py --config=configs/quickstart.py --workdir=runs/a.

The same as `jaxsr train`; `--help` lists the options.
"""

import sys

from jaxsr.__main__ import main

if __name__ == '__main__':
  sys.argv.insert(1, 'train')
  main()
