"""One of two hosts.

Arguments: folder, config as JSON, port of host 0, index of this host, seconds to wait for another.
"""

import json
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

if __name__ == '__main__':
  folder, text, port, process, seconds = sys.argv[1:]
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(process))
  from jaxsr.training import peers
  from jaxsr.training.train import train

  peers.SECONDS = float(seconds)

  config = ConfigDict(json.loads(text))
  config.devices = 0
  sys.exit(train(config, Path(folder)))
