"""Radiographs made up for tests of derived DICOM."""

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

SIZE = (16, 24)


def minimal(stored, *, bits=12, signed=False, kind='MONOCHROME2', **elements):
  """Make a radiograph of stored values, [h, w] or [h, w, 3], with no more than reading needs.

  `elements` are added by their keywords; None drops one.
  """
  ds = Dataset()
  ds.file_meta = FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  ds.SOPClassUID, ds.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, '1.2.3'
  ds.Rows, ds.Columns, ds.SamplesPerPixel = (*stored.shape, 1)[:3]
  ds.PhotometricInterpretation, ds.PixelRepresentation = kind, int(signed)
  ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
  ds.PixelData = stored.astype(f'<u{ds.BitsAllocated // 8}').tobytes()
  for name, value in elements.items():
    if value is not None:
      setattr(ds, name, value)
    elif name in ds:
      delattr(ds, name)
  return ds


STUDY = {
  'SOPInstanceUID': '1.2.3.4',
  'SeriesInstanceUID': '1.2.3',
  'StudyInstanceUID': '1.2',
  'PatientID': 'p',
  'PatientName': 'A^B',
  'Modality': 'DX',
  'ImageType': ['ORIGINAL', 'PRIMARY'],
  'BodyPartExamined': 'CHEST',
  'ViewPosition': 'PA',
  'SeriesNumber': 3,
  'SeriesDescription': 'Chest PA',
  'PixelSpacing': ['0.7', '0.5'],
}


def build(stored, **options):
  """Make a radiograph of a study; `options` are those of `minimal`."""
  return minimal(stored, **(STUDY | options))


def ramp(bits=12, signed=False, count=SIZE[0] * SIZE[1]):
  """Returns stored values over their full range, [16, count / 16]."""
  low = -(2 ** (bits - 1)) if signed else 0
  return np.linspace(low, low + 2**bits - 1, count).round().astype(np.int64).reshape(16, -1)


def save(path, ds, syntax=None):
  ds.file_meta.TransferSyntaxUID = syntax or ds.file_meta.TransferSyntaxUID
  ds.save_as(path, enforce_file_format=True)
  return path


def add_overlay(ds, plane, group=0x6000):
  """Add an overlay plane, a boolean array of the image's size."""
  ds.add_new((group, 0x0010), 'US', plane.shape[0])
  ds.add_new((group, 0x0011), 'US', plane.shape[1])
  ds.add_new((group, 0x0040), 'CS', 'R')
  ds.add_new((group, 0x0050), 'SS', [1, 1])
  ds.add_new((group, 0x0100), 'US', 1)
  ds.add_new((group, 0x0102), 'US', 0)
  ds.add_new((group, 0x1301), 'IS', int(plane.sum()))
  ds.add_new((group, 0x3000), 'OW', np.packbits(plane.ravel(), bitorder='little').tobytes())
