"""Reading until the caches hold nothing else."""

from minibutter.energy.flush import CacheFlusher


def test_every_line_of_the_buffer_is_read():
    assert CacheFlusher(64 * 1000).flush() == 1000


def test_a_buffer_is_memory_of_its_own():
    """Pages that were never written would all be one page of zeros, and drive nothing out."""
    flusher = CacheFlusher(2**16)
    assert flusher._buffer.all()
    assert flusher._buffer.nbytes == 2**16
