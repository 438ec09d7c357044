"""What moves between devices, and how long that takes, by the usual model of a message: latency + bytes / bandwidth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """How a device reaches its neighbour in a ring.

    Attributes:
        bandwidth: bytes per second and direction that one device has for itself.
        latency: seconds that a message takes beyond its bytes.
    """

    bandwidth: float
    latency: float = 0.0

    def send(self, size: float) -> float:
        """Seconds of one message of `size` bytes."""
        return self.latency + size / self.bandwidth

    def all_reduce(self, size: float, devices: int) -> float:
        """Seconds until all have the sum of what each had, `size` bytes: 2·(n-1) messages of size/n in a ring, which is
        the least that can be sent (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of
        workstations", theorem 1 and section 4)."""
        return 2 * self.all_gather(size, devices)

    def all_gather(self, size: float, devices: int) -> float:
        """Seconds until all have the `size` bytes of which each had its part: n-1 messages of size/n in a ring."""
        return (devices - 1) * self.send(size / devices) if devices > 1 else 0.0

    def reduce_scatter(self, size: float, devices: int) -> float:
        """Seconds until each has its part of the sum of `size` bytes; as an all-gather, the other way round."""
        return self.all_gather(size, devices)


__all__ = ["Link"]
