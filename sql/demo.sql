-- The demo pipeline: files of a bank, and an endless stream of auctions. Paths are relative to the repository's folder.

CREATE SOURCE payment (
  transaction_id BIGINT, account_id BIGINT, amount NUMERIC(12,2), currency TEXT, at TIMESTAMP, kind TEXT, merchant TEXT
) WITH (connector = 'file', path = 'data/transactions.csv', follow = 'true') FORMAT PLAIN ENCODE CSV;

CREATE SOURCE account_file (account_id BIGINT, owner TEXT, branch TEXT, opened DATE)
  WITH (connector = 'file', path = 'data/accounts.csv') FORMAT PLAIN ENCODE CSV;

-- Limits that you can change with UPDATE; the view over them follows at once.
CREATE TABLE branch_limit (branch TEXT PRIMARY KEY, amount NUMERIC(12,2) NOT NULL);

CREATE MATERIALIZED VIEW account AS SELECT account_id, owner, branch FROM account_file;

CREATE MATERIALIZED VIEW balance AS
  SELECT a.account_id, a.owner, a.branch, count(*) AS payments, sum(p.amount) AS balance
  FROM payment p JOIN account a ON a.account_id = p.account_id
  GROUP BY a.account_id, a.owner, a.branch;

CREATE MATERIALIZED VIEW branch_balance AS
  SELECT branch, count(*) AS accounts, sum(balance) AS balance FROM balance GROUP BY branch;

CREATE MATERIALIZED VIEW branch_over_limit AS
  SELECT b.branch, b.balance, l.amount AS branch_limit
  FROM branch_balance b JOIN branch_limit l ON l.branch = b.branch WHERE b.balance > l.amount;

CREATE SOURCE auction WITH (connector = 'nexmark', type = 'auction', rate = '1000');
CREATE SOURCE bid WITH (connector = 'nexmark', type = 'bid', rate = '1000');

CREATE MATERIALIZED VIEW bids_per_channel AS
  SELECT channel, count(*) AS bids, avg(price) AS average_price FROM bid GROUP BY channel;

CREATE MATERIALIZED VIEW bids_per_minute AS
  SELECT window_start, count(*) AS bids, max(price) AS highest
  FROM TUMBLE(bid, date_time, INTERVAL '1 minute') GROUP BY window_start;

CREATE MATERIALIZED VIEW highest_bid AS
  SELECT a.id AS auction, a.item_name, a.category, max(b.price) AS price, count(*) AS bids
  FROM bid b JOIN auction a ON a.id = b.auction GROUP BY a.id, a.item_name, a.category;

CREATE MATERIALIZED VIEW category_price AS
  SELECT category, count(*) AS auctions, avg(price) AS average_highest_bid FROM highest_bid GROUP BY category;
