"""Radiographs made up for tests of derived DICOM."""

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

SIZE = (16, 24)


def build(stored, *, bits=12, signed=False, kind='MONOCHROME2', **elements):
  """Make a digital radiograph of stored values [h, w]; None drops an element."""
  ds = Dataset()
  ds.file_meta = FileMetaDataset()
  ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
  ds.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
  ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = '1.2.3.4', '1.2.3', '1.2'
  ds.PatientID, ds.PatientName, ds.Modality, ds.ImageType = (
    'p',
    'A^B',
    'DX',
    ['ORIGINAL', 'PRIMARY'],
  )
  ds.BodyPartExamined, ds.ViewPosition = 'CHEST', 'PA'
  ds.SeriesNumber, ds.SeriesDescription, ds.PixelSpacing = 3, 'Chest PA', ['0.7', '0.5']
  ds.Rows, ds.Columns, ds.SamplesPerPixel = *stored.shape, 1
  ds.PhotometricInterpretation, ds.PixelRepresentation = kind, int(signed)
  ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
  ds.PixelData = stored.astype(f'<u{ds.BitsAllocated // 8}').tobytes()
  for name, value in elements.items():
    delattr(ds, name) if value is None else setattr(ds, name, value)
  return ds


def ramp(bits=12, signed=False):
  """Returns stored values over their full range."""
  low = -(2 ** (bits - 1)) if signed else 0
  values = np.linspace(low, low + 2**bits - 1, SIZE[0] * SIZE[1])
  return values.round().astype(np.int64).reshape(SIZE)


def save(path, ds, syntax=None):
  ds.file_meta.TransferSyntaxUID = syntax or ds.file_meta.TransferSyntaxUID
  ds.save_as(path, enforce_file_format=True)
  return path


def add_overlay(ds, plane, group=0x6000, order='<'):
  """Add an overlay plane, a boolean array of the image's size."""
  ds.add_new((group, 0x0010), 'US', plane.shape[0])
  ds.add_new((group, 0x0011), 'US', plane.shape[1])
  ds.add_new((group, 0x0040), 'CS', 'R')
  ds.add_new((group, 0x0050), 'SS', [1, 1])
  ds.add_new((group, 0x0100), 'US', 1)
  ds.add_new((group, 0x0102), 'US', 0)
  ds.add_new((group, 0x1301), 'IS', int(plane.sum()))
  words = np.packbits(plane.ravel(), bitorder='little').view('<u2')
  ds.add_new((group, 0x3000), 'OW', words.astype(f'{order}u2').tobytes())
