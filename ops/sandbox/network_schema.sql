-- What the simulated information-provision network remembers. Times are microseconds since 1970 (UTC); ids are 16 bytes.
-- No resident code and no individual number ever rests here; an acquisition number only while it is open.

CREATE TABLE IF NOT EXISTS agencies (
    code TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    route TEXT NOT NULL,
    pia INTEGER NOT NULL DEFAULT 1
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS checkpoints (
    agency TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS refused_checkpoints (
    agency TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    note TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (agency, size, root)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS stops (
    kind TEXT NOT NULL,
    procedure TEXT NOT NULL,
    PRIMARY KEY (kind, procedure)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS answer_keys (
    agency TEXT NOT NULL,
    id TEXT NOT NULL,
    public BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (agency, id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS codes (
    agency TEXT NOT NULL,
    code BLOB NOT NULL,
    management BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (agency, code)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS codes_of_person ON codes (management, agency);

CREATE TABLE IF NOT EXISTS acquisitions (
    agency TEXT NOT NULL,
    request BLOB NOT NULL,
    number TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    PRIMARY KEY (agency, request)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS numbers_used (
    digest BLOB PRIMARY KEY,
    at INTEGER NOT NULL
) WITHOUT ROWID;

-- One row a line: the permit's life and the network's own provision record (番号法23条3項), which has no content.
CREATE TABLE IF NOT EXISTS exchanges (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    inquirer TEXT NOT NULL,
    request BLOB NOT NULL,
    digest BLOB NOT NULL,
    reference BLOB NOT NULL,
    provider TEXT NOT NULL,
    facts BLOB NOT NULL,
    management BLOB,
    reply BLOB NOT NULL,
    decided_at INTEGER NOT NULL,
    expires_at INTEGER,
    notified_at INTEGER,
    reviewing INTEGER NOT NULL DEFAULT 0,
    outcome TEXT,
    reason TEXT,
    withheld INTEGER NOT NULL,
    provided_at INTEGER,
    closed_at INTEGER,
    delivered_at INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS exchanges_request ON exchanges (request, inquirer);
CREATE UNIQUE INDEX IF NOT EXISTS exchanges_reference ON exchanges (reference);
CREATE INDEX IF NOT EXISTS exchanges_open ON exchanges (expires_at) WHERE outcome IS NULL;

CREATE TABLE IF NOT EXISTS receipts (
    route TEXT NOT NULL,
    id BLOB NOT NULL,
    digest BLOB NOT NULL,
    reply BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (route, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS receipts_at ON receipts (at);

-- Requests to acquire a code that were passed on, by the line that ended without one; none of their facts.
CREATE TABLE IF NOT EXISTS acquisition_asks (
    inquirer TEXT NOT NULL,
    request BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (inquirer, request)
) WITHOUT ROWID;

-- What must still be pushed. A row goes when it is acknowledged, refused, or past its time.
CREATE TABLE IF NOT EXISTS outbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    route TEXT NOT NULL,
    channel TEXT NOT NULL,
    id BLOB NOT NULL,
    body BLOB NOT NULL,
    until INTEGER NOT NULL,
    position INTEGER
);
CREATE INDEX IF NOT EXISTS outbox_next ON outbox (route, channel, n);

-- Notices and answers that were accepted, kept for a while so that they can be pushed again; n is that of the outbox.
CREATE TABLE IF NOT EXISTS pushed (
    n INTEGER PRIMARY KEY,
    route TEXT NOT NULL,
    channel TEXT NOT NULL,
    id BLOB NOT NULL,
    body BLOB NOT NULL,
    until INTEGER NOT NULL,
    position INTEGER,
    at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS pushed_id ON pushed (id);
CREATE INDEX IF NOT EXISTS pushed_position ON pushed (position) WHERE position IS NOT NULL;

-- Permits whose place another one has taken, and the line that both are of.
CREATE TABLE IF NOT EXISTS replaced (
    permit BLOB PRIMARY KEY,
    position INTEGER NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS replaced_position ON replaced (position);

-- Codes that were brought to agencies of late, by message, with the digest of the number that was used up.
CREATE TABLE IF NOT EXISTS told (
    id BLOB PRIMARY KEY,
    agency TEXT NOT NULL,
    code BLOB NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS told_at ON told (at);

-- Codes that their agency lost, or could not take: the next acquisition for the person brings them once more. Used numbers
-- of such codes may be handed over once more.
CREATE TABLE IF NOT EXISTS untold (
    agency TEXT NOT NULL,
    code BLOB NOT NULL,
    PRIMARY KEY (agency, code)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reopened (
    digest BLOB PRIMARY KEY,
    agency TEXT NOT NULL
) WITHOUT ROWID;

-- Delegations (委任情報): each agency's own half. Days are ISO texts (JST).
CREATE TABLE IF NOT EXISTS delegations (
    agency TEXT NOT NULL,
    id BLOB NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('given', 'taken')),
    side TEXT NOT NULL CHECK (side IN ('inquirer', 'provider')),
    counterpart TEXT NOT NULL,
    affair TEXT,
    valid_from TEXT NOT NULL,
    valid_until TEXT,
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (agency, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delegations_between ON delegations (agency, counterpart, side, role);

-- Corrections of records (訂正), in the order in which they came; body is what was corrected, without content.
CREATE TABLE IF NOT EXISTS corrections (
    agency TEXT NOT NULL,
    id BLOB NOT NULL,
    digest BLOB NOT NULL,
    position INTEGER NOT NULL,
    body BLOB NOT NULL,
    tries INTEGER NOT NULL DEFAULT 1,
    at INTEGER NOT NULL,
    PRIMARY KEY (agency, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS corrections_of ON corrections (position, at, id);
