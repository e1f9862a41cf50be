"""A kernel that opens performance events as it is told to, and counts what it is told to."""

import os
import struct


class FakeKernel:
    """Opens events as files of its own.

    Attributes
    ----------
    refused : errno by type and configuration, or by type, configuration and CPU.
    counts : units by type, configuration and CPU; 0 at first.
    off_ns : by the same, for how much of a second the event was off its counter.
    failing : by the same, the bytes that a reading gives in place of a count, or an OSError.
    opened : type, configuration and CPU of all events, in order.
    """

    def __init__(self):
        self.refused, self.counts, self.off_ns, self.failing = {}, {}, {}, {}
        self.opened, self.n_reads = [], 0
        self._descriptors = []

    def open(self, attribute, cpu):
        type_, size, config = struct.unpack_from("IIQ", attribute)
        assert size == len(attribute)
        code = self.refused.get((type_, config)) or self.refused.get((type_, config, cpu))
        if code is not None:
            raise OSError(code, os.strerror(code))
        self._descriptors.append(os.open("/dev/null", os.O_RDONLY))
        self.opened.append((type_, config, cpu))
        return self._descriptors[-1]

    def read(self, descriptor):
        self.n_reads += 1
        os.fstat(descriptor)  # A closed descriptor must fail.
        key = self.opened[self._descriptors.index(descriptor)]
        failure = self.failing.get(key)
        if isinstance(failure, OSError):
            raise failure
        if failure is not None:
            return failure
        return struct.pack("QQQ", self.counts.get(key, 0), 10**9, 10**9 - self.off_ns.get(key, 0))

    @property
    def n_held(self):
        """Descriptors that are open."""
        return sum(os.path.exists(f"/proc/self/fd/{number}") for number in self._descriptors)  # noqa: PTH110
