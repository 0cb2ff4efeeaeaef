"""Copies as they lie, hostile archives, the tables beside them, and patients dealt out."""

import bz2
import gzip
import lzma
import os
import subprocess
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest

from jaxsr import cli
from jaxsr.data.nih import archives, constants, local_copy, metadata, splits, verify
from jaxsr.data.nih.splits import Rule
from jaxsr.errors import UserError
from nih_files import ENTRY as GOOD
from nih_files import table, tar

NAMES = [f'{patient:08d}_{i:03d}.png' for patient in (1, 2, 3) for i in (0, 1)]


def special(name, kind, link=''):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = kind, link
  return info


def read_all(folder):
  found = local_copy.find(folder)
  return {name: content for part in found.shards for name, content in local_copy.read(part)}


def flat(folder):
  for name in NAMES:
    (folder / name).write_bytes(name.encode())


def nested(folder):
  for i, name in enumerate(NAMES):
    place = folder / f'images_{i // 2 + 1:03d}' / 'images'
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(name.encode())


def archived(folder):
  for i in range(3):
    some = [(f'images/{n}', n.encode()) for n in NAMES[2 * i : 2 * i + 2]]
    tar(folder / f'images_{i + 1:03d}.tar.gz', some)


def zipped(folder):
  with zipfile.ZipFile(folder / 'archive.zip', 'w') as archive:
    for name in NAMES:
      archive.writestr(f'images_001/images/{name}', name.encode())


def mixed(folder):
  archived(folder)
  (folder / NAMES[0]).write_bytes(NAMES[0].encode())  # which an archive has as well


@pytest.mark.parametrize('layout', [flat, nested, archived, zipped, mixed])
def test_a_copy_is_taken_as_it_lies(tmp_path, layout):
  layout(tmp_path)
  (tmp_path / 'notes.txt').write_text('not an image')
  (tmp_path / 'images_099.tar.gz.part').write_bytes(b'half')
  assert read_all(tmp_path) == {name: name.encode() for name in NAMES}


def test_hostile_members_are_left_where_they_are(tmp_path):
  copy = tmp_path / 'copy'
  copy.mkdir()
  good = NAMES[0]
  other = [
    ('../../escape.png', b'x'),
    ('/etc/escape.png', b'x'),
    ('images/evil.png', b'x'),
    ('images/00000001_0000.png', b'x'),
    (special(f'images/{NAMES[1]}', tarfile.SYMTYPE, '/etc/passwd'), b''),
    (special(f'images/{NAMES[2]}', tarfile.LNKTYPE, '../../../etc/passwd'), b''),
    (special(f'images/{NAMES[3]}', tarfile.CHRTYPE), b''),
    (special(f'images/{NAMES[3]}', tarfile.FIFOTYPE), b''),
    (special(f'images/{NAMES[5]}', tarfile.DIRTYPE), b''),
    ('n' * 50_000, b'x'),
    (f'../../../{NAMES[4]}', b'named rightly, whatever its folder'),
    (f'images/{good}', b'good'),
    (f'images/{good}', b'good'),
  ]
  tar(copy / 'images_001.tar.gz', other)
  before = sorted(tmp_path.rglob('*'))
  found = read_all(copy)
  assert found.pop(NAMES[1]).reason == 'is a link in images_001.tar.gz'
  assert found.pop(NAMES[2]).reason == 'is a link in images_001.tar.gz'
  assert found.pop(NAMES[3]).reason == 'is not a regular file in images_001.tar.gz'
  assert found == {good: b'good', NAMES[4]: b'named rightly, whatever its folder'}
  assert sorted(tmp_path.rglob('*')) == before
  assert not os.path.exists('/etc/escape.png')


def test_an_image_that_is_too_large_is_said_to_be(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, 'MAX_IMAGE', 100)
  tar(tmp_path / 'images_001.tar.gz', [(NAMES[0], bytes(101)), (NAMES[1], bytes(100))])
  found = read_all(tmp_path)
  assert found[NAMES[0]].reason == 'is larger than 0 MiB'
  assert found[NAMES[1]] == bytes(100)


def test_a_folder_with_links_to_nothing_and_pipes_is_read_without_them(tmp_path):
  (tmp_path / NAMES[0]).symlink_to(tmp_path / 'gone')
  os.mkfifo(tmp_path / NAMES[1])
  (tmp_path / NAMES[2]).write_bytes(b'good')
  found = read_all(tmp_path)
  assert 'is a link to' in found[NAMES[0]].reason
  assert found[NAMES[1]].reason == 'is not a regular file'
  assert found[NAMES[2]] == b'good'


def damaged(reason):
  return pytest.raises(UserError, match=rf'images_001.*is damaged \(.*{reason}.*download it again')


def test_a_header_that_claims_gigabytes_is_refused(tmp_path):
  info = special('x', tarfile.GNUTYPE_LONGNAME)
  info.size = 7 << 30
  (tmp_path / 'images_001.tar').write_bytes(info.tobuf() + bytes(2048))
  with damaged('header of 7516192768 bytes'):
    read_all(tmp_path)


def test_a_million_entries_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(archives, 'MAX_ENTRIES', 1_000)
  header = tarfile.TarInfo('x').tobuf()
  (tmp_path / 'images_001.tar').write_bytes(1_001 * header + bytes(1024))
  with damaged('more than 1000 entries'):
    read_all(tmp_path)


@pytest.mark.parametrize('keep', [0.1, 0.6, 0.99])
def test_a_truncated_archive_is_named(tmp_path, keep):
  tar(tmp_path / 'whole.tar.gz', [(name, os.urandom(5000)) for name in NAMES])
  whole = (tmp_path / 'whole.tar.gz').read_bytes()
  (tmp_path / 'whole.tar.gz').unlink()
  (tmp_path / 'images_001.tar.gz').write_bytes(whole[: int(keep * len(whole))])
  with damaged(''):
    read_all(tmp_path)


def test_an_archive_that_is_damaged_at_its_beginning_is_named(tmp_path):
  (tmp_path / 'images_001.tar.gz').write_bytes(gzip.compress(b'')[:10] + b'\xff' * 600)
  with damaged(''):
    read_all(tmp_path)


def test_a_page_in_place_of_an_archive_is_named(tmp_path):
  (tmp_path / 'images_001.tar.gz').write_text('<html>sign in</html>')
  with damaged(''):
    read_all(tmp_path)


def test_a_folder_without_images_says_how_to_get_them(tmp_path):
  with pytest.raises(UserError, match='jaxsr data download nih'):
    local_copy.find(tmp_path)


def whole_tar(folder):
  """Returns an archive's bytes and the offsets of its headers."""
  tar(folder / 'whole', [(f'images/{name}', os.urandom(3000)) for name in NAMES], 'w')
  with tarfile.open(folder / 'whole') as archive:
    offsets = [member.offset for member in archive]
  content = (folder / 'whole').read_bytes()
  (folder / 'whole').unlink()
  return bytearray(content), offsets


EARLY = {  # what is cut off, and the reason
  'header': 'at byte {}: invalid header',
  'cut inside': 'at byte {}: truncated header',
  'cut before': 'at byte {}: empty header',
  'cut content': 'unexpected end of data',
  'two archives': 'data after the end',
}


@pytest.mark.parametrize('pack', [bytes, gzip.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize('damage', list(EARLY))
def test_an_archive_that_ends_too_early_is_named(tmp_path, pack, damage):
  content, offsets = whole_tar(tmp_path)
  if damage == 'header':
    content[offsets[3] + 150] ^= 0x10  # its checksum
  elif damage == 'two archives':
    content *= 2
  else:
    del content[offsets[3] + {'cut inside': 300, 'cut before': 0, 'cut content': 999}[damage] :]
  (tmp_path / 'images_001.tar').write_bytes(pack(bytes(content)))
  with damaged(EARLY[damage].format(offsets[3])):
    read_all(tmp_path)


def test_all_members_of_a_gzip_file_are_read(tmp_path):
  content, offsets = whole_tar(tmp_path)
  parts = bytes(content[: offsets[3]]), bytes(content[offsets[3] :])
  (tmp_path / 'images_001.tar.gz').write_bytes(b''.join(map(gzip.compress, parts)))
  assert sorted(read_all(tmp_path)) == NAMES


def test_the_checksum_of_a_gzip_file_is_checked(tmp_path):
  packed = bytearray(gzip.compress(bytes(whole_tar(tmp_path)[0])))
  packed[-8] ^= 1
  (tmp_path / 'images_001.tar.gz').write_bytes(packed)
  with damaged('CRC'):
    read_all(tmp_path)


@pytest.mark.parametrize('name', ['A.TAR.GZ', 'a.tar.xz', 'a.TXZ', 'a.tar.bz2', 'a.tgz', 'a.ZIP'])
def test_an_archive_is_found_by_any_of_its_names(tmp_path, name):
  if name.endswith('ZIP'):
    zipped(tmp_path)
    (tmp_path / 'archive.zip').rename(tmp_path / name)
  else:
    mode = 'w:xz' if 'x' in name.lower() else 'w:bz2' if 'bz2' in name else 'w:gz'
    tar(tmp_path / name, [(each, each.encode()) for each in NAMES], mode)
  assert read_all(tmp_path) == {each: each.encode() for each in NAMES}


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path):
  nested(tmp_path)
  (tmp_path / 'images_004').symlink_to('/nowhere/images_004')
  (tmp_path / 'images_005.tar.gz').symlink_to('/nowhere/images_005.tar.gz')
  os.mkfifo(tmp_path / 'images_006.tar')
  (tmp_path / 'images_007.tar.zst').write_bytes(b'')
  found = local_copy.find(tmp_path)
  assert found.problems == (
    f'{tmp_path}/images_004: is a link to a file or folder that does not exist',
    f'{tmp_path}/images_005.tar.gz: is a link to a file or folder that does not exist',
    f'{tmp_path}/images_006.tar: is not a regular file',
    f'{tmp_path}/images_007.tar.zst: is an archive of a kind that is not read; unpack it',
  )
  assert sorted(read_all(tmp_path)) == NAMES


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
  nested(tmp_path)
  scan = os.scandir

  def refuse(folder):
    if str(folder).endswith('images_002'):
      raise PermissionError(13, 'Permission denied', folder)
    return scan(folder)

  monkeypatch.setattr(os, 'scandir', refuse)
  found = local_copy.find(tmp_path)
  assert found.problems == (f'{tmp_path}/images_002: cannot be listed (Permission denied)',)


def test_links_that_lead_back_are_followed_once(tmp_path):
  nested(tmp_path)
  for name in ('a', 'b', 'c'):
    (tmp_path / name).symlink_to('.')
  found = local_copy.find(tmp_path)
  assert sorted(read_all(tmp_path)) == NAMES and not found.problems


def test_different_images_of_one_name_are_refused(tmp_path):
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / NAMES[0]).write_bytes(b'same')
  assert read_all(tmp_path) == {NAMES[0]: b'same'}
  (tmp_path / 'b' / NAMES[0]).write_bytes(b'else')
  with pytest.raises(UserError, match=f'one name; remove one of a/{NAMES[0]} and b/{NAMES[0]}'):
    local_copy.find(tmp_path)


def test_different_images_of_one_name_in_an_archive_are_refused(tmp_path):
  tar(tmp_path / 'a.tar', [(NAMES[0], b'one'), (NAMES[0], b'two'), (NAMES[1], b'last')], 'w')
  (shard,) = local_copy.find(tmp_path).shards
  names = []
  with pytest.raises(UserError, match=f'a.tar: contains different images of one name: {NAMES[0]}'):
    names.extend(name for name, _ in local_copy.read(shard))
  read = local_copy.read(shard)
  assert [next(read)[0], next(read)[0]] == NAMES[:2]


@pytest.mark.parametrize('damage', ['encrypted', 'compression', 'lzma'])
def test_a_zip_file_that_cannot_be_read_is_named(tmp_path, damage):
  kind = zipfile.ZIP_LZMA if damage == 'lzma' else zipfile.ZIP_STORED
  path = tmp_path / 'a.zip'
  with zipfile.ZipFile(path, 'w', kind) as archive:
    archive.writestr(NAMES[0], os.urandom(2000))
  content = bytearray(path.read_bytes())
  central = content.find(b'PK\x01\x02')
  if damage == 'encrypted':
    content[6] |= 1
    content[central + 8] |= 1
  elif damage == 'compression':
    content[8] = content[central + 10] = 93
  else:
    content[60:100] = bytes(40)
  path.write_bytes(content)
  with pytest.raises(UserError, match=r'a\.zip: (cannot be read|is damaged) \(.* .*\)'):
    read_all(tmp_path)


@pytest.mark.parametrize('packed', [True, False])
def test_names_of_windows_are_read(tmp_path, packed):
  r"""Folders before `\`, and suffixes in upper case."""
  names = [f'images\\{NAMES[0]}', f'{NAMES[1][:-4]}.PNG', f'C:\\a/b\\{NAMES[2].upper()}']
  if packed:
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
      for name in names[:2]:
        archive.writestr(name, name)
    tar(tmp_path / 'a.tar', [(names[2], names[2].encode())], 'w')
  else:
    names[2] = names[2].replace('/', '\\')
    for name in names:
      (tmp_path / name).write_text(name)
  assert read_all(tmp_path) == {NAMES[i]: name.encode() for i, name in enumerate(names)}


OTHER_NAMES = ['images_001', 'a.tar.gz.1', 'a.tar.gz (1)', 'a.gz', 'a.taz', 'a.zip', 'a.download.x']


@pytest.mark.parametrize('name', OTHER_NAMES)
@pytest.mark.parametrize('mode', ['w', 'w:gz', 'w:bz2', 'w:xz', 'zip', 'lzma'])
def test_an_archive_is_recognized_by_its_content(tmp_path, mode, name):
  if mode == 'zip':
    zipped(tmp_path)
    (tmp_path / 'archive.zip').rename(tmp_path / name)
  else:
    content = [(each, each.encode()) for each in NAMES]
    tar(tmp_path / name, content, 'w' if mode == 'lzma' else mode)
    if mode == 'lzma':
      plain = (tmp_path / name).read_bytes()
      (tmp_path / name).write_bytes(lzma.compress(plain, lzma.FORMAT_ALONE))
  assert read_all(tmp_path) == {each: each.encode() for each in NAMES}


def test_archives_in_archives_are_named(tmp_path):
  inner = [(f'a/{name}', b'x') for name in ('images_001.zip', 'images_002.tar.gz', 'b.7z')]
  tar(tmp_path / 'images.tar', [*inner, (NAMES[0], b'good')], 'w')
  with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
    archive.writestr('a\\images_003.TGZ', 'x')
  found = read_all(tmp_path)
  assert found.pop(NAMES[0]) == b'good'
  assert {name: error.reason for name, error in found.items()} == {
    'images_001.zip': 'is an archive in images.tar, which is not read; unpack it',
    'images_002.tar.gz': 'is an archive in images.tar, which is not read; unpack it',
    'b.7z': 'is an archive in images.tar, which is not read; unpack it',
    'images_003.TGZ': 'is an archive in images.zip, which is not read; unpack it',
  }
  result = verify.verify(local_copy.find(tmp_path), decode=False)
  assert result.names == {NAMES[0]}
  assert sum('is an archive in' in problem for problem in result.problems) == 4


REASONS = {
  'a.tar': (b'\x28\xb5\x2f\xfd' + bytes(600), 'is Zstandard, which is not read; unpack it'),
  'b.tar.gz': (gzip.compress(gzip.compress(b'x')), 'is an archive that was compressed again'),
  'c.z01': (b'PK\x07\x08PK\x03\x04', 'is a part of a split zip archive'),
  'd': (b"7z\xbc\xaf'\x1c" + bytes(99), 'is 7-Zip, which is not read; unpack it'),
  'e.tar.gz.part': (b'', 'is an unfinished download; finish it'),
}


def test_what_is_not_read_has_its_true_reason_and_other_files_are_counted(tmp_path, capsys):
  flat(tmp_path)
  for name, (content, _) in REASONS.items():
    (tmp_path / name).write_bytes(content)
  for name in ('a.txt', 'b.docx', '00000001_000.jpg', 'notes.gz', 'a.zip.part'):
    (tmp_path / name).write_bytes(gzip.compress(b'notes') if name == 'notes.gz' else b'PK\x03\x04')
  zipped(tmp_path)
  (tmp_path / 'archive.zip').rename(tmp_path / 'a.zip')
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / constants.BOX_TABLE).write_text('')
  found = local_copy.find(tmp_path)
  expected = sorted(f'{tmp_path}/{name}: {reason}' for name, (_, reason) in REASONS.items())
  assert all(map(str.startswith, sorted(found.problems), expected)) and len(expected) == 5
  assert len(found.problems) == 5
  noted = 'passed over 6 files, neither images nor archives nor tables: 00000001_000.jpg, a.txt, '
  assert noted in capsys.readouterr().err


def test_the_last_part_of_a_split_zip_is_named(tmp_path):
  zipped(tmp_path)
  content = bytearray((tmp_path / 'archive.zip').read_bytes())
  content[content.rindex(b'PK\x05\x06') + 4] = 4
  (tmp_path / 'archive.zip').write_bytes(content)
  with pytest.raises(UserError, match=r'cannot be read \(it is part 5 of a split archive\)'):
    read_all(tmp_path)


@pytest.mark.parametrize('options', [(), ('-H', 'posix'), ('-H', 'posix', '--sparse-version=0.1')])
def test_sparse_members_are_read(tmp_path, options):
  holes = bytearray(1 << 20)
  holes[:4096], holes[-100:] = os.urandom(4096), os.urandom(100)
  (tmp_path / NAMES[0]).write_bytes(b'')
  with (tmp_path / NAMES[0]).open('r+b') as file:
    file.write(holes[:4096])
    file.seek((1 << 20) - 100)
    file.write(holes[-100:])
  command = ['tar', '-C', tmp_path, '-S', *options, '-cf', tmp_path / 'a.tar', NAMES[0]]
  subprocess.run(command, check=True)
  (tmp_path / NAMES[0]).unlink()
  assert (tmp_path / 'a.tar').stat().st_size < 1 << 19
  assert read_all(tmp_path) == {NAMES[0]: holes}


@pytest.mark.parametrize('kind', [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_to_the_image_of_their_name_in_the_archive_are_that_image(tmp_path, kind):
  target = f'./h/x/{NAMES[0]}' if kind == tarfile.LNKTYPE else f'../x/{NAMES[0]}'
  image, link = (f'h/x/{NAMES[0]}', b'good'), (special(f'h/y/{NAMES[0]}', kind, target), b'')
  other = special(f'h/y/{NAMES[1]}', kind, target)
  tar(tmp_path / 'a.tar', [image, link, (other, b'')], 'w')
  found = read_all(tmp_path)
  assert found.pop(NAMES[1]).reason == 'is a link in a.tar'
  assert found == {NAMES[0]: b'good'}


def test_links_in_a_zip_are_as_in_tar(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    for folder, name in (('a', NAMES[0]), ('b', NAMES[1])):
      info = zipfile.ZipInfo(f'{folder}/{name}')
      info.external_attr = 0o120777 << 16
      archive.writestr(info, f'../x/{NAMES[0]}')
    archive.writestr(f'x/{NAMES[0]}', 'good')
  found = read_all(tmp_path)
  assert found.pop(NAMES[1]).reason == 'is a link in a.zip'
  assert found == {NAMES[0]: b'good'}


def test_no_damage_of_a_zip_directory_loses_an_image_in_silence(tmp_path, rng):
  zipped(tmp_path)
  with zipfile.ZipFile(tmp_path / 'archive.zip', 'a') as archive:
    archive.writestr('Größe/readme', 'x')
  whole = (tmp_path / 'archive.zip').read_bytes()
  start, expected = whole.index(b'PK\x01\x02'), read_all(tmp_path)
  refused = 0
  for _ in range(600):
    content = bytearray(whole)
    content[rng.integers(start, len(whole))] = rng.integers(256)
    (tmp_path / 'archive.zip').write_bytes(content)
    try:
      assert read_all(tmp_path).keys() == expected.keys()
    except UserError as error:
      assert 'archive.zip: ' in str(error)
      refused += 1
  assert 200 < refused < 600


@pytest.mark.parametrize('damage', ['not UTF-8', 'name', 'comment', 'empty'])
def test_a_damaged_zip_directory_is_named(tmp_path, damage):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    for name in (f'Größe/{NAMES[0]}', NAMES[1], NAMES[2]):
      archive.writestr(name, name)
  content = (tmp_path / 'a.zip').read_bytes()
  start = content.index(b'PK\x01\x02')
  central, end = bytearray(content[start:-22]), bytearray(content[-22:])
  if damage == 'not UTF-8':
    central = central.replace('ö'.encode(), b'\xf6x')
  elif damage == 'name':
    central = central.replace(b'.png', b'.pnh')
  elif damage == 'comment':
    second = central.index(b'PK\x01\x02', 4)
    central[second + 32] = len(central) - central.index(b'PK\x01\x02', second + 4)
  else:
    end[12:16] = bytes(4)
  (tmp_path / 'a.zip').write_bytes(content[:start] + central + end)
  with pytest.raises(UserError, match=r'a\.zip: is damaged \('):
    read_all(tmp_path)
  found = verify.verify(local_copy.find(tmp_path), decode=False)
  assert any('a.zip: is damaged (' in problem for problem in found.problems)


# The tables beside the images.


@pytest.fixture(scope='module')
def entries(shared):
  return metadata.read_entries(shared / 'nih_meta' / 'Data_Entry_2017_v2020.csv.gz')


def test_the_real_table_is_read_whole(entries):
  assert len(entries) == constants.IMAGE_COUNT
  assert len({entry.patient for entry in entries.values()}) == constants.PATIENT_COUNT
  findings = Counter(f for entry in entries.values() for f in entry.findings)
  assert findings.keys() == set(constants.FINDINGS)
  assert findings['Hernia'] == 227 and findings['Pneumonia'] == 1431  # as published
  assert sum(not entry.findings for entry in entries.values()) == 60_361
  first = entries['00000001_001.png']
  assert first.findings == ('Cardiomegaly', 'Emphysema')
  assert (first.age, first.sex, first.view, first.width) == (58, 'M', 'PA', 2894)


def test_the_real_boxes_are_read_whole(shared, entries):
  boxes = metadata.read_boxes(shared / 'nih_meta' / 'BBox_List_2017.csv')
  assert len(boxes) == 984
  assert {box.finding for box in boxes} <= set(constants.FINDINGS)
  assert all(box.name in entries for box in boxes)


def test_the_older_table_is_read_as_well(tmp_path):
  path = tmp_path / 'Data_Entry_2017.csv'
  path.write_text(
    table(
      GOOD.replace(',58,', ',058Y,') + ',', GOOD.replace('_000', '_001').replace(',58,', ',011M,')
    )
  )
  found = metadata.read_entries(path)
  assert [entry.age for entry in found.values()] == [58, 0]


@pytest.mark.parametrize(
  'rows, reason',
  [
    ((GOOD.replace('00000001_000.png', 'a.png'),), "'a.png' is not an image"),
    ((GOOD.replace(',1,', ',2,'),), 'is assigned to patient 2'),
    ((GOOD.replace('No Finding', 'Gout'),), "'Gout' is unknown"),
    ((GOOD, GOOD.replace('PA', 'AP')), 'occurs twice'),
    ((GOOD.replace(',M,', ',U,'),), "line 2 does not fit .*sex 'U' is not F or M"),
    ((GOOD, GOOD.replace('PA', 'LL')), "line 3 does not fit .*view 'LL' is not AP or PA"),
    ((GOOD.replace(',58,', ',99999999999,'),), "age '99999999999' is not an integer from 0 to"),
    ((GOOD.replace(',58,', ',5_8,'),), "age '5_8' is not an integer"),
    ((GOOD.replace(',2749,', ',4294967296,'),), "height '4294967296' is not an integer"),
    ((GOOD.replace(',2682,', ',-1,'),), "width '-1' is not an integer"),
    ((GOOD.replace('0.143,', 'nan,'),), 'pixel spacing nan, 0.143 is not positive'),
    (('00000001_000.png,No Finding',), 'line 2 does not fit this table'),
    ((), 'contains no row'),
  ],
)
def test_a_wrong_table_is_named(tmp_path, rows, reason):
  path = tmp_path / 'Data_Entry_2017_v2020.csv'
  path.write_text(table(*rows))
  with pytest.raises(UserError, match=reason):
    metadata.read_entries(path)


def test_a_wrong_table_of_boxes_is_named(tmp_path):
  path = tmp_path / constants.BOX_TABLE
  path.write_text('Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Mass,1,nan,3,4\n')
  with pytest.raises(UserError, match='line 2 does not fit this table .*finite'):
    metadata.read_boxes(path)


def test_a_quotation_mark_that_is_never_closed_is_named(tmp_path):
  path = tmp_path / 'Data_Entry_2017_v2020.csv'
  path.write_text(table(GOOD.replace('No Finding', '"No Finding'), *[GOOD] * 3000))
  with pytest.raises(UserError, match=r'v2020.csv: line \d+ cannot be read \(field larger'):
    metadata.read_entries(path)


@pytest.mark.parametrize(
  'content', [b'<html>', b'', b'\xff\xfe\x00', gzip.compress(b'a,b\n', mtime=0)[:-9]]
)
def test_what_is_no_table_is_named(tmp_path, content):
  path = tmp_path / 'Data_Entry_2017_v2020.csv'
  path.write_bytes(content)
  with pytest.raises(UserError, match='Data_Entry_2017_v2020.csv'):
    metadata.read_entries(path)


def test_a_damaged_gzip_table_is_named(tmp_path):
  """Flipped bits and cuts; zlib has an error type of its own."""
  text = ''.join(f'{i:08d}_{i % 7:03d}.png\n' for i in range(3000))
  whole = gzip.compress(text.encode(), mtime=0)
  path, rng = tmp_path / 'test_list.txt.gz', np.random.default_rng(0)
  path.write_bytes(whole)
  assert ''.join(f'{name}\n' for name in metadata.read_list(path)) == text
  for number in range(200):
    content = bytearray(whole)
    if number % 2:
      content[rng.integers(10, len(content))] ^= 1 << number % 8  # a header says nothing of use
    path.write_bytes(content if number % 2 else whole[: rng.integers(2, len(whole))])
    with pytest.raises(UserError, match=r'test_list\.txt\.gz: cannot be read'):
      metadata.read_list(path)


# Patients.


def lists_of(entries):
  """Write lists as the published ones are, of whole patients, with their counts."""
  images, tested, missing = (
    Counter(n[:8] for n in entries),
    set(),
    constants.SPLIT_LIST_SIZES['test'],
  )
  for patient, count in images.most_common():
    if count <= missing:
      tested.add(patient)
      missing -= count
  assert not missing
  kinds = {
    kind: [n for n in entries if (n[:8] in tested) == (kind == 'test')]
    for kind in constants.SPLIT_LISTS
  }
  assert {kind: len(names) for kind, names in kinds.items()} == constants.SPLIT_LIST_SIZES
  return kinds


@pytest.mark.parametrize('listed', [True, False])
def test_no_patient_of_the_real_table_is_in_two_splits(entries, listed):
  lists = lists_of(entries) if listed else None
  dealt = splits.assign(entries, lists, Rule())
  assert dealt.keys() == entries.keys()
  patients = {s: {n[:8] for n, split in dealt.items() if split == s} for s in splits.SPLITS}
  assert sum(map(len, patients.values())) == len(set.union(*patients.values()))
  counts = Counter(dealt.values())
  if listed:
    assert counts['test'] == constants.SPLIT_LIST_SIZES['test'] == 25_596
    assert (
      counts['train'] + counts['validation'] == constants.SPLIT_LIST_SIZES['train_val'] == 86_524
    )
  share = len(patients['validation']) / sum(map(len, patients.values()))
  assert 0.04 < share < 0.06


def test_a_patients_split_does_not_depend_on_the_others(entries):
  names = sorted(entries)
  whole, half = splits.assign(names, None, Rule()), splits.assign(names[::2], None, Rule())
  assert all(whole[name] == split for name, split in half.items())
  assert whole != splits.assign(names, None, Rule(seed=1))


def test_lists_that_share_a_patient_are_refused():
  with pytest.raises(UserError, match='share 1 patients, for example 00000001'):
    splits.assign(NAMES, {'train_val': NAMES[:1] + NAMES[2:], 'test': NAMES[1:2]}, Rule())


def test_images_of_no_list_are_left_out():
  dealt = splits.assign(NAMES, {'train_val': NAMES[:2], 'test': NAMES[2:4]}, Rule(validation=0.0))
  assert dealt == dict(zip(NAMES, ['train'] * 2 + ['test'] * 2, strict=False))


def test_verify_names_what_is_wrong(tmp_path, shared, capsys):
  film = shared / 'nih' / 'train' / '00000001_000.png'
  whole = film.read_bytes()
  (tmp_path / film.name).write_bytes(whole)
  (tmp_path / '00000002_000.png').write_bytes(whole[:9000])
  (tmp_path / '00000099_000.png').write_bytes(whole)
  tar(tmp_path / 'images_003.tar.gz', [('images/00000003_000.png', whole)])
  (tmp_path / 'images_004').symlink_to('/nowhere')
  rows = [GOOD, *(GOOD.replace('00000001', f'{i:08d}').replace(',1,', f',{i},') for i in (2, 3, 4))]
  (tmp_path / 'Data_Entry_2017_v2020.csv').write_text(table(*rows))
  (tmp_path / 'test_list.txt').write_text('00000001_000.png\n')
  with pytest.raises(SystemExit) as exit:
    cli.main(['data', 'verify', 'nih', str(tmp_path)])
  assert exit.value.code == 1
  out = capsys.readouterr().out
  for line in (
    '00000002_000.png: is truncated',
    'images_004: is a link to a file or folder that does not exist',
    'images_003.tar.gz: its MD5 is not the published one',
    'train_val_list.txt is missing',
    'test_list.txt lists 1 images, the published list 25596',
    '1 of 4 images are missing: 00000004_000.png',
    '1 images are not in Data_Entry_2017_v2020.csv: 00000099_000.png',
    '4 images of 4 patients',
  ):
    assert line in out
