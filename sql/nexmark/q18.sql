-- A bidder's last bid for each auction. Of several at the same time the highest counts.
CREATE MATERIALIZED VIEW q18 AS
  SELECT auction, bidder, price, channel, url, date_time, extra FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC) AS place FROM bid
  ) AS ranked WHERE place <= 1;
