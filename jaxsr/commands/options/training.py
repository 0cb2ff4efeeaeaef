"""Options of the commands that train and list networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import Debug, OptionalInt, OptionalPath, OptionalText, Overrides


@dataclass(frozen=True)
class Train:
  """Train and validate a network. Run the same command again to resume.

  Any setting can be changed by `--config.KEY=VALUE`, for example `--config.data.train=FOLDER`. All
  settings, their defaults and their meanings are in `base()` in jaxsr/config/__init__.py; `jaxsr
  models` lists the networks. `python main.py` takes the same options.

  Attributes:
    config: A config file, or the name of a shipped one such as `rdn`; `rdn:smoke` is a short test.
    workdir: The folder of the run: checkpoints, metrics and TensorBoard logs.
    allow_config_change: Resume although the config has changed.
    restart: Begin again; the files of an earlier run move to a folder `before_restart_N` in its
      folder.
    distributed: Train on several hosts (jax.distributed).
    coordinator: HOST:PORT of process 0, if no scheduler provides it.
    processes: The number of hosts, if no scheduler provides it.
    process: The number of this host, counted from 0, if no scheduler provides it.
  """

  config: OptionalText = None
  workdir: OptionalPath = None
  allow_config_change: bool = False
  restart: bool = False
  distributed: bool = False
  coordinator: OptionalText = None
  processes: OptionalInt = None
  process: OptionalInt = None
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class Compress:
  """Train students of several sizes with several objectives, and compare them with their teacher.

  Each trial is a run of its own; the same command continues with the unfinished ones.
  `--config.KEY=VALUE` changes a setting. Writes study.csv, study.html and plots.

  Attributes:
    config: A config file with a section `study`, or its name, such as `compress`.
    workdir: The folder of the study.
    parallel: Number of trials to run at the same time; 0: one per GPU, or one.
  """

  config: str
  workdir: Path
  parallel: int = 0
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class Models:
  """List the networks and their cost for one image of 1024x1024, from the traced computation.

  With a name, also the cost of each layer. `--config.model.KEY=VALUE` sets an option of the
  network; other settings work as well, such as `--config.precision=bfloat16`.

  Attributes:
    name: A network (default: all networks).
    scale: The scale factor.
    channels: 1 for grayscale, 3 for RGB.
    width: Multiplies the number of features, in (0, 1].
    depth: Multiplies the number of blocks, in (0, 1].
  """

  name: Annotated[
    str | None, tyro.conf.Positional, tyro.conf.arg(metavar='NAME', help_behavior_hint='')
  ] = None
  scale: Literal[2, 3, 4, 8] = 4
  channels: Literal[1, 3] = 1
  width: float = 1.0
  depth: float = 1.0
  overrides: Overrides = ()
  debug: Debug = False
