"""A seeded fuzz of every reader: whatever stands in a file, the answer is a value or one line, in little time and memory."""

import random
import resource
import time
import zlib

import pytest
from fuzz_readers import READERS

from tasks.errors import MachineError, UserError

MUTANTS = 68
"""Of each reader; about 2,000 in all."""
SECONDS, BYTES = 2.0, 500 * 2**20


@pytest.mark.parametrize("name", READERS)
def test_a_spoilt_file_is_one_line(name, tmp_path):
    reader = READERS[name]
    path = reader.make(tmp_path / "valid")
    valid = path.read_bytes()
    reader.read(path)
    draw = random.Random(zlib.crc32(name.encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(MUTANTS):
        path.write_bytes(reader.mutate(valid, draw))
        begun = time.perf_counter()
        try:
            reader.read(path)
        except (UserError, MachineError) as error:
            assert str(error), f"mutant {number} is refused without a word"
            assert len(str(error)) < 2000, f"mutant {number} is refused with {len(str(error))} letters"
        assert time.perf_counter() - begun < SECONDS, f"mutant {number}"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES
