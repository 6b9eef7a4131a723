-- Full against incremental checkpoints: the same state, written whole and written as what has changed.
-- docs/lab-checkpoints.md walks through it.

ALTER SYSTEM SET checkpoint_interval = '1h';  -- only those that are asked for

CREATE TABLE lab_event (id INT PRIMARY KEY, account INT NOT NULL, amount NUMERIC(12,2) NOT NULL);
CREATE MATERIALIZED VIEW lab_balance AS SELECT account, count(*) AS events, sum(amount) AS balance FROM lab_event GROUP BY account;

INSERT INTO lab_event SELECT i, i % 100000, i % 1000 FROM generate_series(1, 400000) AS g(i);
CHECKPOINT;

-- One part in a hundred changes.
UPDATE lab_event SET amount = amount + 1 WHERE id <= 4000;
CHECKPOINT;
CHECKPOINT (FULL);

UPDATE lab_event SET amount = amount + 1 WHERE id <= 4000;
CHECKPOINT;
CHECKPOINT (FULL);

SELECT row_number() OVER (ORDER BY started_at) AS n, epoch, kind, duration, bytes FROM millpond.checkpoints WHERE bytes > 0 ORDER BY started_at;

ALTER SYSTEM RESET checkpoint_interval;
