"""Peak memory of a program's activations."""

from jaxsr.analysis import receptive_field
from jaxsr.analysis.jaxpr import Program

_SAME_BYTES = ('reshape', 'squeeze', 'expand_dims', 'copy', 'stop_gradient')


def peak(program: Program) -> int:
  """Returns the peak bytes of values that depend on the last input, including that input.

  Instructions run in the order of the trace; a reshape allocates nothing, and an elementwise
  operation works in place if nothing reads its operand later.
  """
  buffers, sizes = _buffers(program)
  last = {}
  for time, instruction in enumerate(program.instructions):
    last |= {buffers[i]: time for i in instruction.inputs if i in buffers}
  last |= {buffers[i]: len(program.instructions) for i in program.outputs if i in buffers}
  live, most = {0}, sizes[0]
  for time, instruction in enumerate(program.instructions):
    dying = {buffers[i] for i in instruction.inputs if i in buffers} & live
    dying = {b for b in dying if last[b] == time}
    filled = {buffers[i] for i in instruction.outputs if i in buffers} - live
    if receptive_field.is_elementwise(instruction.name):
      live -= {b for b in dying if any(sizes[b] == sizes[f] for f in filled)}
    live |= filled
    most = max(most, sum(sizes[b] for b in live))
    live -= dying | {b for b in filled if b not in last}
  return most


def _buffers(program: Program) -> tuple[dict[int, int], list[int]]:
  """Returns the buffer of each value that depends on the last input, and the bytes per buffer."""
  image = program.inputs[-1]
  buffers, sizes = {image: 0}, [program.size(image)]
  for instruction in program.instructions:
    read = [i for i in instruction.inputs if i in buffers]
    for output in instruction.outputs if read else ():
      if instruction.name in _SAME_BYTES:
        buffers[output] = buffers[read[0]]
      else:
        buffers[output] = len(sizes)
        sizes.append(program.size(output))
  return buffers, sizes
