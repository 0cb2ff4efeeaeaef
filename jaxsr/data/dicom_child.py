"""The process that decodes compressed pixels of DICOM for `dicom_limits`, within limits."""

import io
import os
import struct
import time
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
import pydicom.config
from pydicom.pixels.utils import pixel_array

from jaxsr.data import dicom_codecs, jpeg

try:
  import resource
except ImportError:  # on Windows
  resource = None

_UNDECODABLE = 'its compressed pixels are damaged, or of a kind that its decoder does not know'
_BYTES, _BYTES_PER_PIXEL = 2**28, 24  # OpenJPEG holds several copies in 32 bits
_SECONDS, _SECONDS_PER_PIXEL = 10, 0.5e-6


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
  """Decode each file that comes, and answer with an array in NumPy's format or a reason.

  Requests and answers begin with their length in 8 bytes. Ends when the parent has ended.
  """
  dicom_codecs.register()
  warnings.simplefilter('ignore')
  pydicom.config.logger.disabled = True
  if resource is not None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the end by a limit is no crash to study
  while len(length := requests.read(8)) == 8:
    answer = _decode(requests.read(int.from_bytes(length, 'little')))
    answers.write(struct.pack('<Q', len(answer)) + answer)
    answers.flush()


def _decode(content: bytes) -> bytes:
  answer = io.BytesIO()
  try:
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    _limit(int(dataset.Rows) * int(dataset.Columns), len(content))
    plugin = dicom_codecs.plugin(dataset.file_meta.TransferSyntaxUID)
    array = pixel_array(dataset, raw=True, correct_unused_bits=False, decoding_plugin=plugin)
    np.save(answer, array, allow_pickle=False)
  except RuntimeError as error:  # of pydicom, with the reasons of its plug-ins
    damage = str(jpeg.Damaged())
    return (damage if damage in str(error) else _UNDECODABLE).encode()
  except MemoryError:
    return b'its decoder needs more memory than any film of its size'
  except Exception:  # pydicom's texts may quote elements
    return b'its compressed pixels are not those that its header describes'
  return answer.getvalue()


def _limit(pixels: int, size: int) -> None:
  """Limit the memory and the time of the next file by its number of pixels and its bytes."""
  if resource is None:
    return
  seconds = time.process_time() + _SECONDS + _SECONDS_PER_PIXEL * pixels
  _lower(resource.RLIMIT_CPU, int(seconds) + 1)
  if (statm := Path('/proc/self/statm')).exists():  # without it there is no limit to address space
    used = int(statm.read_text().split()[0]) * os.sysconf('SC_PAGE_SIZE')
    _lower(resource.RLIMIT_AS, used + _BYTES + _BYTES_PER_PIXEL * pixels + 2 * size)


def _lower(kind: int, value: int) -> None:
  """Set the soft limit of a resource, within the hard one."""
  assert resource is not None
  hard = resource.getrlimit(kind)[1]
  resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
