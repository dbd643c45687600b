"""What is made of the sums of a round: of one its mean, of several a median or a trimmed mean.

Decides, coordinate by coordinate, over the weighted means of the groups, each group counting once: a
group whose members poison their deltas moves the result no further than its neighbours in order. A median
is right while fewer than half of the groups are bad, a trimmed mean while no more than are left out at
each end (Yin et al., ICML 2018). Sees sums of groups, never a member's delta. Pure.
"""

from collections.abc import Sequence

import numpy as np

from fedproto.governance.plan import Aggregation, Combine
from fedproto.layout import FlatVector
from fedproto.secagg.stages import AggregateSum

# Coordinates at a time: the sorted copies stay in the cache, and memory at one vector more.
_BLOCK = 1 << 16


def combine(sums: Sequence[AggregateSum], aggregation: Aggregation) -> FlatVector:
    """Return the mean delta of a round; ValueError for fewer sums than the plan needs."""
    if len(sums) < aggregation.least_groups:
        raise ValueError(f"{len(sums)} sums, the plan needs {aggregation.least_groups}")
    if aggregation.combine is Combine.MEAN:
        (only,) = sums
        return only.mean_delta
    means = [total.mean_delta for total in sums]
    out = np.empty_like(means[0])
    left_out = (len(sums) - 1) // 2
    if aggregation.combine is Combine.TRIMMED_MEAN:
        left_out = aggregation.trimmed
    # A median is the mean of the one or two values that are left in the middle.
    middle = slice(left_out, len(sums) - left_out)
    for start in range(0, out.size, _BLOCK):
        block = np.stack([mean[start : start + _BLOCK] for mean in means])
        block.sort(axis=0)
        block[middle].mean(axis=0, out=out[start : start + _BLOCK])
    return out
