-- Bids of each user in windows of a fixed length. The suite counts by the time of processing; here the events' time counts.
CREATE MATERIALIZED VIEW q12 AS
  SELECT bidder, count(*) AS bid_count, window_start, window_end
  FROM TUMBLE(bid, date_time, INTERVAL '10' SECOND) GROUP BY bidder, window_start, window_end;
