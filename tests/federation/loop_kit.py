"""What tests of coroutines share."""

import asyncio


async def until(holds):
    """Return once `holds()`, letting the loop go on meanwhile."""
    for _ in range(30_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to that")
