"""The films that a model was trained on, by the digests of their pixels."""

from jaxsr.data import film_digests, records, sources
from jaxsr.errors import UserError
from jaxsr.inference import package
from jaxsr.inference.model import Model


def of(model: Model) -> set[str] | None:
  """Returns the digests of a model's training films; None if the films are not at hand."""
  if model.folder is None:
    return None
  if (listed := model.folder / package.TRAINING_FILMS).is_file():
    return film_digests.read(listed)
  from jaxsr.checkpoint import run_dir  # here, since Orbax takes long to import

  saved = run_dir.read_config(model.folder) if package.find(str(model.folder)) is None else None
  data = saved['config']['data'] if saved else {}
  train = str(data.get('train', 'phantom'))
  if train == 'phantom':
    return None
  try:
    if sources.of_records(train):
      split = train.partition('/')[2] or 'train'
      return film_digests.of_source(records.Records(data['records'], split))
    folder = sources.Folder(train, channels=model.channels, stored_bits=data.get('bits', 0))
    return film_digests.of_source(folder)
  except UserError:  # they have moved
    return None
