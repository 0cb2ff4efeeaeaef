"""The images of an evaluation, their metadata, and where its files may lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxsr.data import bit_depth, records, sources
from jaxsr.data.nih import constants, local_copy, metadata
from jaxsr.errors import UserError
from jaxsr.evaluation import boxes as box_figures
from jaxsr.evaluation import own_files


def check_output(folder: Path, output: Path) -> None:
  """Raise UserError if results would lie among the images, or replace files of others."""
  if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
    raise UserError(f'{output}: lies in the data {folder}; choose another --output')
  own_files.check(output)


def open_images(
  folder: Path, split: str, bits: int, *, channels: int
) -> sources.Folder | records.Records:
  """Open a folder of images, an image, or a split of records."""
  bit_depth.check(bits)
  if records.holds(folder):
    return records.Records(folder, split, channels=channels)
  return sources.Folder(folder, channels=channels, stored_bits=bits)


def read_metadata(
  source: sources.Source, tables: Path | None
) -> tuple[Mapping[str, records.IndexRow], Mapping[str, Sequence[metadata.Box]]]:
  """Returns the metadata of images and the boxes in them, by file name."""
  known = {row.name: row for row in source.rows} if isinstance(source, records.Records) else {}
  if tables is None:
    return known, {}
  found = local_copy.tables(tables)
  if entries := next((found[n] for n in constants.ENTRY_TABLES if n in found), None):
    known = {name: metadata.index_row(x) for name, x in metadata.read_entries(entries).items()}
  box_table = found.get(constants.BOX_TABLE)
  boxes = metadata.read_boxes(box_table) if box_table is not None else []
  if not known and not boxes:
    names = f'{constants.ENTRY_TABLES[0]} nor {constants.BOX_TABLE}'
    raise UserError(f'{tables}: contains neither {names}; choose the folder with the tables of NIH')
  return known, box_figures.by_image(boxes)
