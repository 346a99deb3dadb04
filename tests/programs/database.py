"""SQLite with its whole database in memory: fills it, indexes it, updates it, and prints checksums."""

import hashlib
import random
import sqlite3
import sys


def body(number, generation):
    return random.Random(number * 31 + generation).randbytes(700)


rows = int(sys.argv[1]) * 1200
base = sqlite3.connect(":memory:")
base.execute("create table item (number integer primary key, tag text, body blob, generation integer)")
base.executemany(
    "insert into item values (?, ?, ?, 0)",
    ((number, hashlib.md5(str(number).encode()).hexdigest(), body(number, 0)) for number in range(rows)),
)
base.commit()
base.execute("create index by_tag on item (tag)")
order = random.Random(1)
for _ in range(rows // 4):
    number = order.randrange(rows)
    tag = hashlib.md5(str(number).encode()).hexdigest()
    found = base.execute("select number, body, generation from item where tag = ?", (tag,)).fetchone()
    assert found[0] == number and found[1] == body(number, found[2]), f"row {number} has changed"
    base.execute("update item set body = ?, generation = 1 where number = ?", (body(number, 1), number))
base.execute("delete from item where number % 10 = 0")
base.commit()
assert base.execute("pragma integrity_check").fetchone() == ("ok",)
total = hashlib.sha256()
for number, content, generation in base.execute("select number, body, generation from item order by tag"):
    assert content == body(number, generation), f"row {number} has changed"
    total.update(content)
print("rows", base.execute("select count(*), sum(generation) from item").fetchone(), total.hexdigest())
