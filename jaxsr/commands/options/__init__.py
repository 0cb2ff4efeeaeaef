"""The options of every command: what `jaxsr --help` and `jaxsr COMMAND --help` show.

These modules import nothing heavy, so that help and mistakes take no time. `jaxsr.cli` imports the
module that runs a command when that command is called.
"""

from jaxsr.commands.options.conversion import Export, Import, PackageCommand
from jaxsr.commands.options.data import DATA_ACTIONS, Data, Download, Hash, Inspect, Prepare, Verify
from jaxsr.commands.options.doctor import Doctor
from jaxsr.commands.options.evaluation import Calibrate, Compare, Evaluate
from jaxsr.commands.options.simulation import Degrade, Phantom
from jaxsr.commands.options.training import Compress, Models, Train
from jaxsr.commands.options.upscaling import Demo, Upscale

__all__ = [
  'DATA_ACTIONS',
  'Calibrate',
  'Compare',
  'Compress',
  'Data',
  'Degrade',
  'Demo',
  'Doctor',
  'Download',
  'Evaluate',
  'Export',
  'Hash',
  'Import',
  'Inspect',
  'Models',
  'PackageCommand',
  'Phantom',
  'Prepare',
  'Train',
  'Upscale',
  'Verify',
]
