import hashlib
import http.server
import shutil
import threading
import time

import pytest

from jaxsr import cli
from jaxsr.data.nih import constants, download
from jaxsr.data.nih.constants import Archive
from jaxsr.errors import UserError

RETRIES = download.RetryPolicy(timeout=0.5, first_wait=0.01, longest_wait=0.05)
SIZE = 200_000


def content(number):
  body = hashlib.shake_256(str(number).encode()).digest(SIZE)
  return b'\x1f\x8b' + body


class Server:
  """Serves twelve files; `faults[name]` is a list of what goes wrong at each request for one."""

  def __init__(self):
    self.files = {a.name: content(i) for i, a in enumerate(constants.ARCHIVES)}
    self.faults = {name: [] for name in self.files}
    self.asked = []
    outer = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def log_message(self, *arguments):
        pass

      def do_HEAD(self):
        self.send_response(200)
        self.send_header('Content-Length', str(len(outer.files[self.path[1:]])))
        self.end_headers()

      def do_GET(self):
        outer.answer(self)

    self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    self.server.daemon_threads = True
    threading.Thread(target=self.server.serve_forever, daemon=True).start()
    self.url = f'http://127.0.0.1:{self.server.server_address[1]}'

  def answer(self, handler):
    name = handler.path[1:]
    if name not in self.files:
      handler.send_error(404)
      return
    body, start = self.files[name], 0
    wanted = handler.headers.get('Range')
    self.asked.append((name, wanted))
    fault = self.faults[name].pop(0) if self.faults.get(name) else ''
    if fault in ('404', '500', '403'):
      handler.send_error(int(fault))
      return
    if fault == 'html':
      body = b'<html>sign in</html>'
    if fault == 'changed':
      body = body[:-1] + bytes([body[-1] ^ 1])
    if wanted and fault not in ('no ranges', 'html'):
      start = int(wanted.removeprefix('bytes=').rstrip('-'))
      if start >= len(body):
        handler.send_response(416)
        handler.send_header('Content-Range', f'bytes */{len(body)}')
        handler.end_headers()
        return
      handler.send_response(206)
      handler.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
    else:
      handler.send_response(200)
    handler.send_header('Content-Type', 'text/html' if fault == 'html' else 'application/gzip')
    if fault != 'no length':
      handler.send_header('Content-Length', str(len(body) - start))
    handler.end_headers()
    rest = body[start:]
    if fault in ('cut', 'stall', 'no length'):
      handler.wfile.write(rest[: len(rest) // 2])
      handler.wfile.flush()
      if fault == 'stall':
        time.sleep(2 * RETRIES.stall)
      handler.close_connection = True
      return
    handler.wfile.write(rest)

  def archives(self):
    return [
      Archive(n, hashlib.md5(b).hexdigest(), f'{self.url}/{n}') for n, b in self.files.items()
    ]


@pytest.fixture
def server():
  found = Server()
  yield found
  found.server.shutdown()
  found.server.server_close()


@pytest.fixture
def fetcher(tmp_path):
  return download.Fetcher(tmp_path, retries=RETRIES)


def whole(server, folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()} == server.files


def test_twelve_archives_come_through_every_fault(server, fetcher, tmp_path):
  faults = ['cut', 'stall', 'changed', 'no ranges', '500', 'no length', 'cut cut cut', '']
  for name, fault in zip(server.files, faults * 2, strict=False):
    server.faults[name] = fault.split() if fault.startswith('cut ') else [fault]
  server.faults[constants.ARCHIVES[3].name] = ['cut', 'no ranges']
  assert fetcher.fetch_all(server.archives(), jobs=4) == {}
  assert whole(server, tmp_path)


def test_a_part_is_gone_on_with(server, fetcher, tmp_path):
  archive = server.archives()[0]
  body = server.files[archive.name]
  download.partial_file(tmp_path / archive.name).write_bytes(body[:70_000])
  fetcher.fetch(archive)
  assert server.asked == [(archive.name, 'bytes=70000-')]
  assert (tmp_path / archive.name).read_bytes() == body


def test_what_is_there_is_not_fetched_again(server, fetcher, tmp_path):
  archive = server.archives()[0]
  fetcher.fetch(archive)
  fetcher.fetch(archive)
  assert len(server.asked) == 1


@pytest.mark.parametrize('length', [SIZE + 2, SIZE + 500])
def test_a_part_of_the_whole_length_or_more(server, fetcher, tmp_path, length):
  archive = server.archives()[0]
  body = server.files[archive.name]
  download.partial_file(tmp_path / archive.name).write_bytes((body + bytes(500))[:length])
  fetcher.fetch(archive)
  assert (tmp_path / archive.name).read_bytes() == body


def test_a_damaged_part_is_fetched_anew(server, fetcher, tmp_path):
  archive = server.archives()[0]
  download.partial_file(tmp_path / archive.name).write_bytes(b'\x1f\x8b' + bytes(1000))
  fetcher.fetch(archive)
  assert (tmp_path / archive.name).read_bytes() == server.files[archive.name]


def test_a_wrong_sum_is_kept_aside_and_named(server, fetcher, tmp_path):
  archive = server.archives()[2]
  server.faults[archive.name] = ['changed', 'changed']
  failed = fetcher.fetch_all(server.archives()[:4], jobs=2)
  assert list(failed) == [archive.name]
  assert archive.md5 in failed[archive.name] and constants.HOME in failed[archive.name]
  assert (tmp_path / f'{archive.name}.bad').exists()
  assert not (tmp_path / archive.name).exists()
  assert fetcher.fetch_all(server.archives()[:4], jobs=2) == {}  # the same command mends it


@pytest.mark.parametrize('fault', ['404', '403', 'html'])
def test_a_link_that_is_gone_says_what_to_fetch_by_hand(server, fetcher, tmp_path, fault):
  archive = server.archives()[1]
  server.faults[archive.name] = [fault]
  with pytest.raises(UserError, match=rf'{archive.name}.*by hand from {constants.HOME}'):
    fetcher.fetch(archive)
  assert len(server.asked) == 1
  assert not (tmp_path / archive.name).exists()


def test_a_server_that_never_answers_is_given_up(server, fetcher):
  archive = server.archives()[1]
  server.faults[archive.name] = ['500'] * download.TRIES
  with pytest.raises(UserError, match=f'500.*{download.TRIES} times; run the same command again'):
    fetcher.fetch(archive)


def test_a_server_that_always_begins_again_and_cuts_is_given_up(server, fetcher):
  archive = server.archives()[1]
  real = server.answer

  def answer(handler):
    del handler.headers['Range']
    server.faults[archive.name] = ['cut']
    real(handler)

  server.answer = answer
  with pytest.raises(UserError, match='restarts the file each time, 8 times'):
    fetcher.fetch(archive)


def test_what_is_told_adds_up(server, tmp_path):
  told = []
  archives = server.archives()[:3]
  server.faults[archives[0].name], server.faults[archives[1].name] = ['cut'], ['changed']
  download.partial_file(tmp_path / archives[2].name).write_bytes(
    server.files[archives[2].name][:1000]
  )
  fetcher = download.Fetcher(tmp_path, on_bytes=told.append, retries=RETRIES)
  fetcher.fetch_all(archives, jobs=1)
  assert sum(told) == 3 * (SIZE + 2)


def test_a_full_disk_is_seen_first(server, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=5 * SIZE)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  sizes = [download.archive_size(archive, RETRIES) for archive in server.archives()]
  assert sizes == [SIZE + 2] * 12
  with pytest.raises(UserError, match='the download needs'):
    download.check_space(tmp_path, server.archives(), sizes)
  for name, body in list(server.files.items())[:8]:
    (tmp_path / name).write_bytes(body)
  assert download.check_space(tmp_path, server.archives(), sizes) == 12 * (SIZE + 2)


def run(*arguments):
  with pytest.raises(SystemExit) as exit:
    cli.main(['data', *map(str, arguments)])
  return exit.value.code


def test_the_command_fetches_from_a_mirror_and_copies_from_a_folder(
  server, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(constants, 'ARCHIVES', tuple(server.archives()))
  server.files['test_list.txt'] = b'00000001_000.png\n'
  server.files['BBox_List_2017.csv'] = b'<html>sign in</html>'
  data, copy = tmp_path / 'data', tmp_path / 'copy'
  assert run('download', 'nih', '--output', data, '--mirror', server.url) == 0
  out = capsys.readouterr().out
  assert '12 of 12 archives' in out
  assert (data / 'test_list.txt').read_text() == '00000001_000.png\n'
  reason = '(train_val_list.txt: cannot be downloaded'
  assert f'train_val_list.txt could not be downloaded {reason}' in out
  assert 'BBox_List_2017.csv could not be downloaded' in out and constants.HOME in out
  assert sorted(p.name for p in data.iterdir() if p.suffix != '.gz') == ['lock', 'test_list.txt']
  (data / constants.ARCHIVES[5].name).write_bytes(b'damaged')
  (data / constants.ARCHIVES[6].name).unlink()
  assert run('download', 'nih', '--output', copy, '--from-dir', data) == 1
  captured = capsys.readouterr()
  assert '10 of 12 archives' in captured.out
  assert (copy / 'test_list.txt').exists()
  assert (
    'images_006.tar.gz: has MD5' in captured.err and 'images_007.tar.gz: no such' in captured.err
  )
  there = {path.name: path.stat().st_ino for path in copy.iterdir()}
  assert run('download', 'nih', '--output', copy, '--from-dir', data) == 1
  assert {path.name: path.stat().st_ino for path in copy.iterdir()} == there
