"""Small files in the format of the NIH release."""

import io
import tarfile

ENTRY = '00000001_000.png,No Finding,0,1,58,M,PA,2682,2749,0.143,0.143'


def tar(path, members, mode='w:gz'):
  """Write an archive of (name or TarInfo, content)."""
  with tarfile.open(path, mode) as archive:
    for name, content in members:
      info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))


def table(*rows):
  head = (
    'Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position'
  )
  return '\n'.join([f'{head},OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]', *rows])
