"""Which files of an output folder earlier evaluations and comparisons wrote."""

from pathlib import Path

from jaxsr import __version__
from jaxsr.errors import UserError
from jaxsr.evaluation import unfinished
from jaxsr.evaluation.html import GENERATOR

NOTE = f'jaxsr {__version__}; by evaluate'  # the comment of pictures
_PICTURE = ('Comment\0jaxsr ', '; by evaluate')
_MARKS = {  # texts that a file of each name holds, if it was written here
  'summary.json': ('"network"', '"bicubic_psnr"', '"version"'),
  'per_image.csv': ('file,', ',bicubic_psnr,'),
  'strata.csv': ('kind,value,n,', ',bicubic_psnr,'),
  'regions.csv': ('file,finding,patient,', ',bicubic_psnr,'),
  'contact_sheet.png': _PICTURE,
  'report.html': (GENERATOR,),
  'conditions.csv': ('condition,method,n,psnr,',),
  'conditions.png': _PICTURE,
  'conditions_per_image.csv': ('condition,method,file,psnr,',),
  'compare.csv': ('network,parameters,n,psnr,',),
  'compare_per_image.csv': ('network,file,psnr,bicubic_psnr,',),
  'trust.json': ('"version"', '"scale"'),
  'trust.csv': ('file,network,patches,flagged,',),
  'trust.png': _PICTURE,
  'lesions.csv': ('films,condition,n,network,',),
  unfinished.FILE: ('["',),
  'readers.csv': ('reader,finding,network,',),
}


def check(output: Path) -> None:
  """Raise UserError if a file that results would replace or remove was not written by jaxsr.

  A link to a file that does not exist belongs to whoever made it.
  """
  for name, marks in _MARKS.items():
    path = output / name
    if path.is_symlink() and not path.exists():
      problem = 'is a link to a file that does not exist'
    elif path.exists() and not _is_own(path, marks):
      problem = 'is not marked as written by jaxsr'
    else:
      continue
    raise UserError(f'{path}: {problem}, and is not replaced; choose another --output')


def _is_own(path: Path, marks: tuple[str, ...]) -> bool:
  try:
    content = path.read_bytes()
  except OSError:  # a folder, or not readable
    return False
  if path.suffix in ('.csv', '.jsonl') and not content.strip():  # without rows
    return True
  return all(mark.encode() in content for mark in marks)
