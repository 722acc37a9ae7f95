-- What a simulated national agency remembers: its people's codes, what it was asked, what it asked, and its records.
-- It is an agency of its own with its own keys; nothing of the platform or of the network rests here.

CREATE TABLE IF NOT EXISTS people (
    key TEXT PRIMARY KEY,
    request BLOB NOT NULL UNIQUE,
    number TEXT UNIQUE,
    code BLOB UNIQUE,
    state TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS inbox (
    id BLOB PRIMARY KEY,
    at INTEGER NOT NULL
) WITHOUT ROWID;

-- One row a permit that was used: the answer rests until the network gives a receipt.
CREATE TABLE IF NOT EXISTS given (
    permit BLOB PRIMARY KEY,
    notice BLOB NOT NULL,
    answer_id BLOB UNIQUE,
    answer BLOB,
    record BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_waiting ON given (permit) WHERE answer IS NOT NULL;

-- One row a line that was asked: the request rests until the network has replied.
CREATE TABLE IF NOT EXISTS asked (
    id BLOB PRIMARY KEY,
    person TEXT NOT NULL,
    request BLOB,
    record BLOB NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT,
    reason TEXT,
    reference TEXT,
    content BLOB,
    deadline INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS asked_waiting ON asked (deadline) WHERE outcome IS NULL;

CREATE TABLE IF NOT EXISTS records (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL
);
