"""A Python program of many small objects, large buffers, threads and forked workers; prints checksums that depend only on its argument."""

import gc
import hashlib
import os
import random
import sys
import threading


def record(number):
    return {"number": number, "name": f"record {number}", "digest": hashlib.md5(str(number).encode()).hexdigest()}


def objects(count):
    table = {number: record(number) for number in range(count)}
    order = random.Random(1)
    for _ in range(count):
        number = order.randrange(count)
        assert table[number] == record(number), f"record {number} has changed"
    for number in range(0, count, 3):
        del table[number]
    gc.collect()
    assert all(table[number] == record(number) for number in table)
    return hashlib.sha256(repr(sorted(table.items())).encode()).hexdigest()


def buffers(mebibytes):
    blocks = [bytearray(random.Random(number).randbytes(1 << 20)) for number in range(mebibytes)]
    failures = []

    def check(first):
        for number in range(first, mebibytes, 3):
            if blocks[number] != random.Random(number).randbytes(1 << 20):
                failures.append(number)

    threads = [threading.Thread(target=check, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, f"buffers {failures} have changed"
    return blocks


def forked(blocks):
    """A child sums up the buffers while the parent overwrites them."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in blocks)).digest())
        os._exit(0)
    expected = hashlib.sha256(
        b"".join(hashlib.sha256(random.Random(number).randbytes(1 << 20)).digest() for number in range(len(blocks)))
    )
    for block in blocks:
        block[:] = bytes(len(block))
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    digest = os.read(reader, 32)
    assert digest == expected.digest(), "the child did not see the buffers as of the fork"
    assert not any(any(block) for block in blocks), "an overwritten buffer came back"
    return digest.hex()


mebibytes = int(sys.argv[1])
print("objects", objects(mebibytes * 600))
print("buffers", forked(buffers(mebibytes // 2)))
