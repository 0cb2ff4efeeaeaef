"""A traced computation as a flat list of instructions: calls are inlined, values are numbered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal

_INNER = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')  # parameters that hold the callee of a call
_LOOPS = ('scan', 'while')


@dataclass(frozen=True)
class Instruction:
  """One primitive, with values by number; `scope` is the path of the modules that contain it."""

  name: str
  bind: Callable[..., Any]
  params: dict[str, Any]
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  scope: str


@dataclass
class Program:
  """Instructions in order; `shapes` and `constants` are indexed by the number of a value."""

  instructions: list[Instruction] = field(default_factory=list)
  shapes: list[Any] = field(default_factory=list)
  constants: dict[int, np.ndarray] = field(default_factory=dict)
  inputs: list[int] = field(default_factory=list)
  outputs: list[int] = field(default_factory=list)

  def elements(self, value: int) -> int:
    """Returns the number of elements of a value."""
    return int(np.prod(self.shapes[value].shape))

  def size(self, value: int) -> int:
    """Returns the size of a value in bytes."""
    return self.elements(value) * self.shapes[value].dtype.itemsize


def trace(function: Callable, *arguments: Any) -> Program:
  """Trace a function on shapes; nothing is compiled or computed.

  If the computation depends on the platform, the accelerator's is traced.

  Raises:
    ValueError: If there are loops or branches, whose cost is not in the trace.
  """
  closed = jax.make_jaxpr(function)(*arguments)
  program = Program()
  program.inputs = [_new(program, var.aval) for var in closed.jaxpr.invars]
  program.outputs = _inline(program, closed.jaxpr, closed.consts, program.inputs, '')
  return program


def _new(program: Program, shape: Any, constant: Any = None) -> int:
  program.shapes.append(shape)
  number = len(program.shapes) - 1
  if constant is not None:
    program.constants[number] = np.asarray(constant)
  return number


def _inline(
  program: Program, jaxpr: Jaxpr, consts: list, inputs: list[int], scope: str
) -> list[int]:
  """Append a computation's instructions; returns the numbers of its outputs."""
  numbers = dict(zip(jaxpr.invars, inputs, strict=True))
  platforms = set()  # variables that hold the index of the platform
  for var, value in zip(jaxpr.constvars, consts, strict=True):
    numbers[var] = _new(program, var.aval, value)

  def number(atom: Any) -> int:
    is_literal = isinstance(atom, Literal)
    return _new(program, atom.aval, atom.val) if is_literal else numbers[atom]

  for eqn in jaxpr.eqns:
    name = eqn.primitive.name
    if name in _LOOPS:
      raise ValueError(f'the cost of a loop ({name}) cannot be read from its trace')
    if name == 'platform_index':
      platforms.update(eqn.outvars)
      continue
    path = '/'.join(filter(None, (scope, str(eqn.source_info.name_stack))))
    if name == 'cond':  # operand 0 selects the branch; the last platform is the default
      if isinstance(eqn.invars[0], Literal) or eqn.invars[0] not in platforms:
        raise ValueError('the branch that a cond takes cannot be read from its trace')
      called, operands = eqn.params['branches'][-1], eqn.invars[1:]
    else:
      called = next((eqn.params[key] for key in _INNER if key in eqn.params), None)
      operands = eqn.invars
    values = [number(atom) for atom in operands]
    if called is None:
      results = [_new(program, var.aval) for var in eqn.outvars]
      primitive = (name, eqn.primitive.bind, eqn.params)
      program.instructions.append(Instruction(*primitive, tuple(values), tuple(results), path))
    else:
      inner = getattr(called, 'jaxpr', called)  # closed over constants, or not
      results = _inline(program, inner, getattr(called, 'consts', []), values, path)
    numbers |= dict(zip(eqn.outvars, results, strict=True))
  return [number(atom) for atom in jaxpr.outvars]
