"""How many threads the engine computes with, so that a core is left for answering.

OpenMP's threads wait for each other in a loop: where one of them has no core of its own, a batch takes many times as
long as on fewer threads. HTTP, JSON and the conversations need about as much of a core as there is traffic.
"""

from __future__ import annotations

import os


def limit_threads(wanted: int | None) -> int:
    """Set and return the threads of the calling thread's computations, `wanted` of them.

    None is one less than there are cores, or what OMP_NUM_THREADS says. Imports torch.
    """
    import torch
    from threadpoolctl import threadpool_limits

    if wanted is None:
        said = "OMP_NUM_THREADS" in os.environ
        wanted = torch.get_num_threads() if said else max(1, torch.get_num_threads() - 1)
    torch.set_num_threads(wanted)
    threadpool_limits(limits=wanted, user_api="blas")
    return wanted
