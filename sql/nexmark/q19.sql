-- The ten highest bids of each auction; of equal ones the earlier is higher.
CREATE MATERIALIZED VIEW q19 AS
  SELECT * FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder) AS place FROM bid
  ) AS ranked WHERE place <= 10;
