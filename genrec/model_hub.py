"""Models by name: from their folder, from the Hugging Face hub or, without a network, from what was loaded before.

Where the hub cannot be reached, its client asks six times for every file, and waits longer each time: half a minute and
more until one learns that a name is misspelt. So the hub is asked once, and where nothing answers its client is told
that it is offline. It then takes a model from its cache, or says at once that it is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def reaching_hub(name: str) -> Iterator[None]:
    """Load the model `name` in this block: asks the hub for what is no folder, if anybody answers there.

    Raises OSError saying so where nobody does and what is here of the model does not suffice.
    """
    from huggingface_hub import constants

    if Path(name).exists() or constants.is_offline_mode() or _answers():
        yield
        return
    # For all threads: while nobody answers, none of them could load anything either.
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError as error:
        raise OSError(
            f"it is no folder, {constants.ENDPOINT} cannot be reached, and no whole copy of it is in the cache"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = False


def _answers() -> bool:
    """Whether the hub says anything, through its client's own proxies and within the time that it gives a file."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # of httpx, httpx2 or requests: its versions have clients of their own
        return False
    return True
