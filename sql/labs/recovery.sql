-- Failure recovery: a step fails at the 5th transaction, the job restarts from its last checkpoint, no row is lost or doubled.
-- Paths are relative to the repository's folder. docs/lab-recovery.md walks through it.

ALTER SYSTEM SET enable_fault_injection = on;
ALTER SYSTEM SET checkpoint_interval = '1s';

CREATE SOURCE lab_transaction (
  transaction_id BIGINT, account_id BIGINT, amount NUMERIC(12,2), currency TEXT, at TIMESTAMP, kind TEXT, merchant TEXT
) WITH (connector = 'file', path = 'data/transactions.csv', follow = 'true') FORMAT PLAIN ENCODE CSV;

-- The map that fails. The view over it keeps sums, which a doubled or a lost row would show.
CREATE MATERIALIZED VIEW lab_mapped
  WITH (restart_strategy = 'fixed-delay', restart_attempts = 3, restart_delay = '5s') AS
  SELECT transaction_id, account_id, amount, upper(kind) AS kind FROM lab_transaction WHERE millpond_fail_after(5);

CREATE MATERIALIZED VIEW lab_by_kind AS
  SELECT kind, count(*) AS transactions, sum(amount) AS amount FROM lab_mapped GROUP BY kind;

SELECT count(*) AS rows, count(DISTINCT transaction_id) AS different, min(transaction_id) AS first, max(transaction_id) AS last FROM lab_mapped;
SELECT * FROM lab_by_kind ORDER BY kind;

ALTER SYSTEM RESET enable_fault_injection;
ALTER SYSTEM RESET checkpoint_interval;
