"""A simulated accelerator, for machines that have none: the device "sim".

torch lets a device be written in Python. A tensor of this one says that it is on sim:0, and holds a
tensor on the CPU; an operation runs on what its arguments hold. So all numbers are the CPU's, to
the bit, and nothing is learned about speed. But as with CUDA

- an operation refuses to mix tensors of the device and of the CPU, unless it copies one to the
  other, or those on the CPU are numbers (of no dimension) or an index;
- random numbers come from a generator of the device;
- what makes the CPU wait is counted, as is what the device would launch.

    with torch.sim as device:  # otherwise no operation runs there
        torch.ones(3, device="sim").sum().item()
    device.counts  # {"launches": 3, "reads": 1, "uploads": 0}

To be imported before a process's first backward pass: then torch starts a thread per device.
"""

import collections

import torch
from torch.utils import _pytree as pytree
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# What computes nothing, beside views.
NOT_LAUNCHED = {aten.empty, aten.empty_like, aten.empty_strided, aten._unsafe_view}
# A result that the CPU must know to go on: a value, or how large a tensor is.
READING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class SimulatedTensor(torch.Tensor):
    """A tensor that says it is on the device. `held`, on the CPU, has its numbers."""

    @staticmethod
    def __new__(cls, held):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device="sim:0"
        )
        tensor.held = held
        return tensor

    def __reduce_ex__(self, protocol):
        """In a file it is as a tensor of the CPU, which torch.load(map_location="cpu") returns."""
        return self.held.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} on the simulated device, outside of `with torch.sim`")


class SimulatedDevice(TorchDispatchMode, backend_registration._DummyBackendModule):
    """The device, and, as torch.cuda is to CUDA, its module: torch.sim.

    Attributes:
        generator: of its random numbers.
        counts: "launches" of operations that compute or copy (on a GPU, at least one kernel each);
            "reads", where the CPU waits to learn a value; "uploads" of tensors of the CPU (CUDA
            makes the CPU wait for these, too, unless their memory is pinned).
    """

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()
        self.counts = collections.Counter()

    def manual_seed_all(self, seed):
        """What torch.manual_seed calls."""
        self.generator.manual_seed(seed)

    def get_rng_state(self, device):
        return self.generator.get_state()

    def set_rng_state(self, state, device):
        self.generator.set_state(state)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """Run an operation. Those that concern only the CPU come here as well."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if torch.is_tensor(leaf)]
        inside = [tensor for tensor in tensors if isinstance(tensor, SimulatedTensor)]
        outside = [t for t in tensors if not isinstance(t, SimulatedTensor) and t.dim() > 0]
        copies, indexes = operation is aten.copy_.default, operation is aten.index.Tensor
        result_inside = isinstance(args[0], SimulatedTensor) if copies else bool(inside)
        if kwargs.get("device"):  # of torch.zeros and the like, and of Tensor.to
            result_inside = kwargs["device"].type == "sim"
            kwargs = kwargs | {"device": torch.device("cpu")}
        if not inside and not result_inside:
            return operation(*args, **kwargs)

        may_mix = copies or (indexes and isinstance(args[0], SimulatedTensor))
        if inside and outside and not may_mix:
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
        reads = READING & set(operation.tags)
        if indexes:  # only a mask leaves open how large the result is
            reads = any(tensor.dtype == torch.bool for tensor in tensors[1:])
        self.counts.update(
            launches=not operation.is_view and operation.overloadpacket not in NOT_LAUNCHED,
            reads=bool(reads or not result_inside),
            uploads=bool(outside and result_inside),
        )
        args, kwargs = pytree.tree_map_only(SimulatedTensor, lambda t: t.held, (args, kwargs))
        if torch.Tag.nondeterministic_seeded in operation.tags:  # it draws random numbers
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(self.generator.get_state())
                result = operation(*args, **kwargs)
                self.generator.set_state(torch.get_rng_state())
        else:
            result = operation(*args, **kwargs)
        if not result_inside:
            return result
        known = {id(tensor.held): tensor for tensor in inside}  # what works in place returns one
        return pytree.tree_map_only(
            torch.Tensor, lambda t: known.get(id(t), SimulatedTensor(t)), result
        )


SIM = SimulatedDevice()
backend_registration._setup_privateuseone_for_python_backend("sim", backend_module=SIM)


# These two are called out of sight of the class above, where an index is a list.
@torch.library.impl("aten::empty_strided", "privateuseone")
def empty_strided(size, stride, *, dtype, **_):
    return SimulatedTensor(torch.empty_strided(size, stride, dtype=dtype))


@torch.library.impl("aten::_copy_from", "privateuseone")
def copy_from(source, target, non_blocking=False):
    SIM.counts.update(launches=1, uploads=1)
    target.held.copy_(source)
    return target
