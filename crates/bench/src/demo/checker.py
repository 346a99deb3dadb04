"""Checks its own memory all the time: each page holds its number and how often it was written."""
import json
import random
import struct
import sys
import threading

PAGE = 4096
pages = int(sys.argv[1]) // PAGE
memory = bytearray(pages * PAGE)
versions = [0] * pages


def content(page):
    return struct.pack("<QQ", page, versions[page]) * (PAGE // 16)


def write(page):
    memory[page * PAGE : (page + 1) * PAGE] = content(page)


for page in range(pages):
    write(page)
print("ready", flush=True)

ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), ended.set()), daemon=True).start()

checks = 0
while not ended.is_set():
    page = random.randrange(pages)
    if memory[page * PAGE : (page + 1) * PAGE] != content(page):
        sys.exit(f"page {page} does not hold what was written to it")
    if checks % 4 == 0:
        versions[page] += 1
        write(page)
    checks += 1
print(json.dumps({"checks": checks}))
