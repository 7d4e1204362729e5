"""The tables of the SQLite journal.

The layout was chosen by measuring what one claim and one fulfil cost: the two transactions that every paid
call waits for. What costs is the number of pages that a commit touches, so:

- ``claims`` holds only what decides (about 150 bytes a contract) and is one tree, in the order of its key.
  ``ended`` says how a claim ended: NULL open, ``n`` of ``owed``, or minus the ``n`` of ``unowed``. The
  signed contract waits in the memory of the process that claimed it, and is written once tokens are owed.
- ``owed`` and ``unowed`` are only ever appended to. ``n`` grows without gaps, so a batch is a range of ``n``
  and the outbox needs neither an index nor a mark on each row: ``marks.next`` is the first ``n`` that no
  batch has. ``verdicts`` holds the exceptions, one contract each: lost, or settled in another transaction.
- A short response stands in the row of its contract. A longer one is in ``responses``, because it may go
  first: deleting whole old pages frees space, shrinking rows does not.
- ``numbers`` keeps the used ``seq`` of a lane, 60 to a row, one bit each. Row ``FLOOR`` of a lane says which
  is the first chunk still kept; what is older counts as used. Row ``SUM`` of an allowance, in no lane, has
  the tokens that its claims stand for: nearly always on the same page.
- The views are what several modules ask: ``settled_below`` is the first ``n`` that may not be dropped yet.
- ``funds`` is there for the trigger ``take`` alone: see :mod:`tokenmesh.journal.usual`.
- ``releases`` and ``skips`` are what the ledger should hear of contracts that owe nothing; ``orphans`` are
  the open claims whose owner is gone and that a retry may still take over.
"""

from __future__ import annotations

APPLICATION_ID = 0x746D6A31
SCHEMA_VERSION = 2
PAGE_BYTES = 2_048
"""A small page makes a small write: this writes 14 KB to the log for one paid call, 4,096 would write 22."""
CHUNK = 60
"""Numbers (``seq``) in one row of ``numbers``: what fits in SQLite's signed 64-bit integer, with room."""
FLOOR = -1
SUM = -2

SCHEMA = """
CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, alive_until REAL NOT NULL,
    locked INTEGER NOT NULL);
CREATE TABLE claims (
    payer TEXT NOT NULL, jti TEXT NOT NULL, binding BLOB NOT NULL, tok INTEGER NOT NULL, via TEXT NOT NULL,
    lane TEXT, seq INTEGER, exp INTEGER NOT NULL, settle_by REAL NOT NULL, owner INTEGER NOT NULL,
    ended INTEGER, funds INTEGER, PRIMARY KEY (payer, jti)) WITHOUT ROWID;
CREATE TABLE owed (
    n INTEGER PRIMARY KEY, payer TEXT NOT NULL, jti TEXT NOT NULL, charged INTEGER NOT NULL, at REAL NOT NULL,
    status INTEGER NOT NULL, digest TEXT NOT NULL, contract TEXT NOT NULL, receipt TEXT,
    headers TEXT, body BLOB, response INTEGER);
CREATE TABLE unowed (
    n INTEGER PRIMARY KEY, payer TEXT NOT NULL, jti TEXT NOT NULL, out TEXT NOT NULL, reason TEXT,
    at REAL NOT NULL, status INTEGER, digest TEXT, receipt TEXT,
    headers TEXT, body BLOB, response INTEGER);
CREATE TABLE responses (id INTEGER PRIMARY KEY, headers TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE numbers (
    allowance TEXT NOT NULL, lane TEXT NOT NULL, chunk INTEGER NOT NULL, bits INTEGER NOT NULL, until REAL,
    PRIMARY KEY (allowance, lane, chunk)) WITHOUT ROWID;
CREATE VIEW allowances AS
    SELECT allowance AS id, bits AS used, until FROM numbers WHERE lane = '' AND chunk = -2;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER, last INTEGER, owner INTEGER, operation TEXT,
    tx_id TEXT, finished REAL);
CREATE INDEX batches_unfinished ON batches (id) WHERE finished IS NULL;
CREATE INDEX batches_by_first ON batches (first) WHERE first IS NOT NULL;
CREATE TABLE verdicts (n INTEGER PRIMARY KEY, code TEXT, tx_id TEXT);
CREATE TABLE releases (
    payer TEXT NOT NULL, jti TEXT NOT NULL, batch INTEGER, PRIMARY KEY (payer, jti)) WITHOUT ROWID;
CREATE TABLE skips (
    allowance TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL, until REAL NOT NULL, batch INTEGER,
    PRIMARY KEY (allowance, lane, seq)) WITHOUT ROWID;
CREATE TABLE orphans (
    payer TEXT NOT NULL, jti TEXT NOT NULL, settle_by REAL NOT NULL, PRIMARY KEY (payer, jti)) WITHOUT ROWID;
CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO marks VALUES ('next', 1);
CREATE VIEW under_way AS
    SELECT id, first, last, owner, operation FROM batches WHERE finished IS NULL AND owner IS NOT NULL;
CREATE VIEW unfinished AS SELECT id, first, last FROM batches WHERE finished IS NULL AND first IS NOT NULL;
CREATE VIEW undecided AS SELECT * FROM owed WHERE n NOT IN (SELECT n FROM verdicts);
CREATE VIEW fresh AS SELECT * FROM owed WHERE n >= (SELECT value FROM marks WHERE name = 'next');
CREATE VIEW settled_below AS
    SELECT min((SELECT value FROM marks WHERE name = 'next'), ifnull(min(first), 9223372036854775807)) AS n
    FROM unfinished;
CREATE VIEW unsettled AS
    SELECT ifnull((SELECT max(n) FROM owed), 0) + 1 - (SELECT value FROM marks WHERE name = 'next')
        + (SELECT ifnull(sum(last - first + 1), 0) FROM unfinished)
        - (SELECT count(*) FROM unfinished JOIN verdicts ON n BETWEEN first AND last) AS contracts;
"""

TRIGGERS = """
CREATE TRIGGER take BEFORE INSERT ON claims WHEN NEW.funds IS NOT NULL BEGIN
    UPDATE numbers SET bits = bits | (1 << (NEW.seq % 60))
        WHERE allowance = NEW.via AND lane = NEW.lane AND chunk = NEW.seq / 60
        AND bits & (1 << (NEW.seq % 60)) = 0
    ; SELECT RAISE(ABORT, 'unusual number') WHERE changes() = 0
    ; UPDATE numbers SET bits = bits + NEW.tok, until = max(until, NEW.settle_by, NEW.exp)
        WHERE allowance = NEW.via AND lane = '' AND chunk = -2 AND bits + NEW.tok <= NEW.funds
    ; SELECT RAISE(ABORT, 'unusual allowance') WHERE changes() = 0
    ; END;
CREATE VIEW fulfilling AS
    SELECT payer, jti, charged, at, contract, receipt, status, digest, headers, body, 0 AS owner FROM owed;
CREATE TRIGGER fulfil INSTEAD OF INSERT ON fulfilling BEGIN
    UPDATE claims SET ended = (SELECT ifnull(max(n), 0) + 1 FROM owed)
        WHERE payer = NEW.payer AND jti = NEW.jti AND ended IS NULL AND owner = NEW.owner
        AND settle_by > NEW.at AND tok = NEW.charged
    ; SELECT RAISE(ABORT, 'unusual end') WHERE changes() = 0
    ; INSERT INTO owed (payer, jti, charged, at, contract, receipt, status, digest, headers, body)
        VALUES (NEW.payer, NEW.jti, NEW.charged, NEW.at, NEW.contract, NEW.receipt,
            NEW.status, NEW.digest, NEW.headers, NEW.body)
    ; END;
"""
"""What goes with one statement of :mod:`tokenmesh.journal.usual`; 60 is ``CHUNK``, -2 ``SUM``. No line of a
trigger ends with a semicolon: that is where statements are taken apart."""
