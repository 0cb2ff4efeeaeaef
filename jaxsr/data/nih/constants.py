"""Names, links and checksums that the NIH Clinical Center publishes."""

import re
from typing import NamedTuple

HOME = 'https://nihcc.app.box.com/v/ChestXray-NIHCC'
TERMS_OF_USE = (
  'NIH ChestX-ray14: use is unrestricted; link to '
  f'{HOME}, cite Wang et al., ChestX-ray8, CVPR 2017, and acknowledge the NIH Clinical Center'
)
IMAGE_COUNT, PATIENT_COUNT = 112_120, 30_805
IMAGE_SIDE = 1024  # height and width of each image in pixels
TOTAL_GIGABYTES = 42  # size of all archives
IMAGE_NAME = re.compile(r'(\d{8})_(\d{3})\.png', re.ASCII)
ENTRY_TABLES = ('Data_Entry_2017_v2020.csv', 'Data_Entry_2017.csv')  # newest first
SPLIT_LISTS = {'train_val': 'train_val_list.txt', 'test': 'test_list.txt'}
SPLIT_LIST_SIZES = {'train_val': 86_524, 'test': 25_596}
BOX_TABLE = 'BBox_List_2017.csv'
NO_FINDING = 'No Finding'
FINDINGS = (
  'Atelectasis',
  'Cardiomegaly',
  'Consolidation',
  'Edema',
  'Effusion',
  'Emphysema',
  'Fibrosis',
  'Hernia',
  'Infiltration',
  'Mass',
  'Nodule',
  'Pleural_Thickening',
  'Pneumonia',
  'Pneumothorax',
)


class Archive(NamedTuple):
  """An archive of images, with its MD5 from the publisher's FAQ (question 7)."""

  name: str
  md5: str
  url: str


_STATIC = 'https://nihcc.box.com/shared/static/{}.gz'
_PUBLISHED = (  # from the publisher's FAQ and batch_download_zips.py
  ('fe8ed0a6961412fddcbb3603c11b3698', 'vfk49d74nhbxq3nqjg0900w5nvkorp5c'),
  ('ab07a2d7cbe6f65ddd97b4ed7bde10bf', 'i28rlmbvmfjbl8p2n3ril0pptcmcu9d1'),
  ('2301d03bde4c246388bad3876965d574', 'f1t00wrtdk94satdfb9olcolqx20z2jp'),
  ('9f1b7f5aae01b13f4bc8e2c44a4b8ef6', '0aowwzs5lhjrceb3qp67ahp0rd1l1etg'),
  ('1861f3cd0ef7734df8104f2b0309023b', 'v5e3goj22zr6h8tzualxfsqlqaygfbsn'),
  ('456b53a8b351afd92a35bc41444c58c8', 'asi7ikud9jwnkrnkj99jnpfkjdes7l6l'),
  ('1075121ea20a137b87f290d6a4a5965e', 'jn1b4mw4n6lnh74ovmcjb8y48h8xj07n'),
  ('b61f34cec3aa69f295fbb593cbd9d443', 'tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j'),
  ('442a3caa61ae9b64e61c561294d1e183', 'upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj'),
  ('09ec81c4c31e32858ad8cf965c494b74', 'l6nilvfa9cg3s28tqv1qc1olm3gnz54p'),
  ('499aefc67207a5a97692424cf5dbeed5', 'hhq8fkdgvcari67vfhs7ppg2w6ni4jze'),
  ('dc9fda1757c2de0032b63347a7d2895c', 'ioqwiy20ihqwyr8pf4c24eazhh281pbu'),
)
ARCHIVES = tuple(
  Archive(f'images_{number:03d}.tar.gz', md5, _STATIC.format(key))
  for number, (md5, key) in enumerate(_PUBLISHED, 1)
)

TABLES = (ENTRY_TABLES[0], *SPLIT_LISTS.values(), BOX_TABLE)


def manual_download(name: str) -> str:
  """Returns an instruction to download a file by hand."""
  return f'download {name} by hand from {HOME} into the same folder'
