"""A GPU that is none: its tensors say that they are on it, and the CPU does the work.

`python -m tests.trainer.pretended_gpu COMMAND` is `python -m trainer COMMAND` on it. A tensor of the CPU that meets one
of the GPU is an error as on a real one, and so is what only a CPU's memory can do. It neither compiles nor halves: its
type is not `cuda`, which torch takes only where it was built for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from trainer import __main__ as trainer
from trainer import contract, parallel

ATEN = torch.ops.aten
COPIES = (ATEN.copy_.default, ATEN._to_copy.default)


class Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


backend_registration._setup_privateuseone_for_python_backend("pretended", Backend())
GPU = torch.device("pretended", 0)


class OnGpu(torch.Tensor):
    """`there` is where its numbers are."""

    there: torch.Tensor

    @staticmethod
    def __new__(cls, there: torch.Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_wrapper_subclass(
            cls, there.shape, there.stride(), there.storage_offset(), dtype=there.dtype, device=GPU
        )
        return made

    def __init__(self, there: torch.Tensor) -> None:
        self.there = there

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return done(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.there.tolist()  # which torch does not take from a subclass


class Gpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it `GPU` is a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return done(func, args, kwargs or {})


def done(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What `func` gives, on the GPU where its arguments or `device` are; in place, the tensor that it was given."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    gpus = {id(tensor.there): tensor for tensor in given if isinstance(tensor, OnGpu)}
    if func is ATEN._pin_memory.default:
        if gpus:
            raise RuntimeError("only dense CPU tensors can be pinned")
        return args[0]
    if gpus and func not in COPIES and any(t.ndim and not isinstance(t, OnGpu) for t in given):
        raise RuntimeError(f"{func}: tensors on two devices")
    device = kwargs.get("device")
    told = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "non_blocking")}
    if device is not None:
        told["device"] = torch.device("cpu")
    here, told = tree_map_only(OnGpu, lambda t: t.there, (args, told))
    result = func(*here, **told)
    if func is ATEN.copy_.default:
        return args[0]
    if not (gpus if device is None else torch.device(device).type == GPU.type):
        return result
    return tree_map_only(torch.Tensor, lambda t: gpus[id(t)] if id(t) in gpus else OnGpu(t), result)


def main() -> int:
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    parallel.device = functools.cache(lambda: GPU)
    with Gpu():  # type: ignore[no-untyped-call]
        return trainer.main()


if __name__ == "__main__":
    contract.leave(main())
