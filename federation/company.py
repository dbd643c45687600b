"""How many acts are worth waiting for before they are written together.

A batch costs as much as several entries do. But of acts that come at once only a few are there at any
moment: the others are not read yet. So one more is waited for whenever more were on their way than
made a batch, and no more than came when some were waited for in vain. An act that comes alone waits
for nobody. Pure.
"""


class Company:
    """Learns from every batch how many make the next."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.expected = 1

    def gathered(self, under_way: int) -> None:
        """Note that as many came as were expected, with so many under way, themselves included."""
        if under_way > self.expected:
            self.expected = min(self._limit, self.expected + 1)

    def missed(self, came: int) -> None:
        """Note that no more came in time."""
        self.expected = came
