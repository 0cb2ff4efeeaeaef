"""`jaxsr demo`: serve the page of a model on this machine."""

import contextlib
import sys
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from jaxsr.commands.export import serialize
from jaxsr.commands.options import Demo
from jaxsr.errors import FAILED, UserError
from jaxsr.export import exportable
from jaxsr.inference.model import load

_HOST = '127.0.0.1'
_HEADERS = {
  'Content-Type': 'text/html; charset=utf-8',
  'Cache-Control': 'no-store',
  'Cross-Origin-Opener-Policy': 'same-origin',  # with the next, a page may share memory between
  'Cross-Origin-Embedder-Policy': 'require-corp',  # threads
}


def run(options: Demo) -> int:
  """Build the page and serve it until it is interrupted; returns the exit code."""
  try:
    server = make_server(options)
  except exportable.MismatchError as error:
    print(f'error: {error}', file=sys.stderr)
    return FAILED
  with server:
    print(f'http://{_HOST}:{server.server_port} (Ctrl-C ends it)', flush=True)
    server.serve_forever()
  return 0


def make_server(options: Demo) -> ThreadingHTTPServer:
  """Build the page, and returns a server of it; raises UserError if the port is taken."""
  try:  # before the page is built, which takes seconds
    server = ThreadingHTTPServer((_HOST, options.port), _Handler)
  except (OSError, OverflowError) as error:
    raise UserError(f'--port {options.port}: cannot be used ({error}); try another') from error
  try:
    prepared = exportable.prepare(load(options.checkpoint))
    page, _ = serialize(prepared, 'web', libraries=options.runtime)
  except BaseException:
    server.server_close()
    raise
  server.RequestHandlerClass = partial(_Handler, page)
  return server


class _Handler(BaseHTTPRequestHandler):
  """Answers every request for `/` with the page."""

  def __init__(self, page: bytes, *args: Any):
    self._page = page
    super().__init__(*args)

  def do_GET(self) -> None:
    """Send the page."""
    self._answer(self._page)

  def do_HEAD(self) -> None:
    """Send the headers of the page."""
    self._answer(b'')

  def _answer(self, content: bytes) -> None:
    if self.path.partition('?')[0] != '/':
      self.send_error(404)
      return
    self.send_response(200)
    for name, value in {**_HEADERS, 'Content-Length': str(len(self._page))}.items():
      self.send_header(name, value)
    with contextlib.suppress(ConnectionError):  # the browser left before all of it was sent
      self.end_headers()
      self.wfile.write(content)

  def log_message(self, format: str, *args: Any) -> None:
    """Print nothing."""
