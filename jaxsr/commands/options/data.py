"""Options of `jaxsr data`, a data class per action."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import DataSet, Debug, OptionalPath, OptionalText


@dataclass(frozen=True)
class Download:
  """Download the twelve archives (42 GB). Run the same command again to resume.

  Attributes:
    dataset: The data set: nih.
    output: The folder for the archives.
    from_dir: A folder that already holds the archives: they are checked and copied.
    mirror: The address of a mirror that has the archives under their original names.
    jobs: The number of parallel downloads.
  """

  dataset: DataSet
  output: Path
  from_dir: OptionalPath = None
  mirror: OptionalText = None
  jobs: int = 4
  debug: Debug = False


@dataclass(frozen=True)
class Verify:
  """List the missing and damaged files of a copy: the archives, a Kaggle copy or another layout.

  Attributes:
    dataset: The data set: nih.
    data: The folder of the copy.
    decode: Decode every image; otherwise check only sums, names and tables.
  """

  dataset: DataSet
  data: Annotated[Path, tyro.conf.Positional]
  decode: bool = True
  debug: Debug = False


@dataclass(frozen=True)
class Prepare:
  """Check every image once and write records. Run the same command again to resume.

  Attributes:
    dataset: The data set: nih.
    data: The folder of the copy: archives, a flat folder, or images_*/images/.
    output: The folder for the records.
    labels: Keep only images with one of these findings ('No Finding' is one).
    form: What a record stores: decoded pixels, compressed pixels, or the original file.
    scale: The scale of the stored low-resolution images; other scales are computed during training.
    validation: The share of the patients outside the test set that is used for validation.
    test: The share of the patients in the test set, if the published lists are missing.
    seed: The random seed of the split.
    runner: The Beam runner.
    workers: Worker processes of the DirectRunner (default: one per core).
    beam: More Beam options, as in --beam flink_master=HOST:PORT environment_type=LOOPBACK.
  """

  dataset: DataSet
  data: Annotated[Path, tyro.conf.Positional]
  output: Path
  labels: tuple[str, ...] = ()
  form: Literal['raw', 'zstd', 'png'] = 'raw'
  scale: int = 4
  validation: float = 0.05
  test: float = 0.1
  seed: int = 0
  runner: str = 'DirectRunner'
  workers: int = 0
  beam: tuple[str, ...] = ()
  debug: Debug = False


@dataclass(frozen=True)
class Inspect:
  """Summarize a folder of records: splits, patients, findings.

  Attributes:
    records: The folder of the records.
    read: Read every record and list the damaged ones.
  """

  records: Annotated[Path, tyro.conf.Positional]
  read: bool = False
  debug: Debug = False


@dataclass(frozen=True)
class Hash:
  """Write the SHA-256 of every image of a folder, or compare with those written before.

  Training and evaluation check each image that they read against `SHA256SUMS` in the folder;
  `sha256sum -c` checks all of them.

  Attributes:
    data: The folder of the images, read recursively.
    overwrite: Write the sums again, of the images as they are now.
  """

  data: Annotated[Path, tyro.conf.Positional]
  overwrite: bool = False
  debug: Debug = False


DATA_ACTIONS: list[type] = [Download, Verify, Prepare, Inspect, Hash]
DataAction = (
  Annotated[Download, tyro.conf.subcommand('download')]
  | Annotated[Verify, tyro.conf.subcommand('verify')]
  | Annotated[Prepare, tyro.conf.subcommand('prepare')]
  | Annotated[Inspect, tyro.conf.subcommand('inspect')]
  | Annotated[Hash, tyro.conf.subcommand('hash')]
)


@dataclass(frozen=True)
class Data:
  """Download, check and convert NIH ChestX-ray14; hash a folder of images."""

  action: DataAction

  @property
  def debug(self) -> bool:
    """Whether to show the traceback of an error."""
    return self.action.debug
