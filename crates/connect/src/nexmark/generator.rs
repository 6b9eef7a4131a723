//! Events as pure functions of the seed and the event's number: reading can begin anywhere, and column by column.
//!
//! Ids, proportions and hot ratios follow the benchmark's own generator: half of the bids go to the newest hot auction,
//! three quarters come from the newest hot bidder, three quarters of the auctions are the newest hot seller's.

use std::time::Duration;

/// Persons among [`EVENTS_PER_ROUND`] events.
pub const PERSONS_PER_ROUND: u64 = 1;
/// Auctions among [`EVENTS_PER_ROUND`] events.
pub const AUCTIONS_PER_ROUND: u64 = 3;
/// Bids among [`EVENTS_PER_ROUND`] events.
pub const BIDS_PER_ROUND: u64 = 46;
/// After so many events the order of kinds begins anew.
pub const EVENTS_PER_ROUND: u64 = PERSONS_PER_ROUND + AUCTIONS_PER_ROUND + BIDS_PER_ROUND;

const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// One in so many persons and auctions is hot for a while.
const HOT_EVERY: u64 = 100;
/// One in so many bids is for any auction, by any person; one in so many auctions is any person's.
const HOT_AUCTION_RATIO: u64 = 2;
const HOT_BIDDER_RATIO: u64 = 4;
const HOT_SELLER_RATIO: u64 = 4;
/// How far back a bid's auction and an event's person may be, and how far ahead of those that exist.
const AUCTIONS_IN_FLIGHT: u64 = 100;
const PERSONS_ACTIVE: u64 = 1000;
const ID_LEAD: u64 = 10;
/// Channels that are not hot.
pub const CHANNELS: u64 = 10_000;
/// Hot channels, with half of the bids.
pub const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// What a random number is for; each purpose has its own stream of them.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the names say it
pub enum Draw {
    FirstName = 1,
    LastName,
    Email,
    CreditCard,
    City,
    State,
    PersonExtra,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    SellerHot,
    Seller,
    Category,
    AuctionExtra,
    AuctionHot,
    Auction,
    BidderHot,
    Bidder,
    Price,
    ChannelHot,
    Channel,
    ChannelUrl,
    BidExtra,
}

/// The fixed settings of one stream of events.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    seed: u64,
    base_us: i64,
    gap_us: i64,
    gap_rest_ns: i64,
}

/// The odd constant of Weyl sequences: 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64: a bijection whose output looks random.
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The number of random bits `random` scaled to `0..limit`.
#[inline]
pub fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

impl Generator {
    /// Events of a seed, from a first time on, with a time between them.
    pub fn new(seed: u64, base_us: i64, gap: Duration) -> Generator {
        let gap_ns = i64::try_from(gap.as_nanos()).unwrap_or(i64::MAX);
        Generator { seed: mix(seed.wrapping_add(GOLDEN)), base_us, gap_us: gap_ns / 1000, gap_rest_ns: gap_ns % 1000 }
    }

    /// The key of a purpose's random numbers, to be taken once for many events.
    #[inline]
    pub fn key(&self, draw: Draw) -> u64 {
        mix(self.seed ^ (draw as u64).wrapping_mul(GOLDEN))
    }

    /// The random number of an event.
    #[inline]
    pub fn random(key: u64, event: u64) -> u64 {
        mix(key.wrapping_add(event.wrapping_mul(GOLDEN)))
    }

    /// The event's time in microseconds.
    #[inline]
    pub fn time(&self, event: u64) -> i64 {
        let event = event as i64;
        self.base_us.wrapping_add(event.wrapping_mul(self.gap_us)).wrapping_add(event.wrapping_mul(self.gap_rest_ns) / 1000)
    }

    /// When the auction of the event ends.
    #[inline]
    pub fn expires(&self, key: u64, event: u64) -> i64 {
        let events_ahead = AUCTIONS_IN_FLIGHT * EVENTS_PER_ROUND / AUCTIONS_PER_ROUND;
        let now = self.time(event);
        let horizon_ms = (self.time(event + events_ahead) - now) / 1000;
        now + 1000 * (1 + below(Self::random(key, event), (2 * horizon_ms).max(1) as u64) as i64)
    }

    /// The id of the person that the event is.
    #[inline]
    pub fn person(event: u64) -> i64 {
        (last_person(event) + FIRST_ID) as i64
    }

    /// The id of the auction that the event is.
    #[inline]
    pub fn auction(event: u64) -> i64 {
        (last_auction(event) + FIRST_ID) as i64
    }

    /// Who offers.
    #[inline]
    pub fn seller(hot_key: u64, key: u64, event: u64) -> i64 {
        let hot = below(Self::random(hot_key, event), HOT_SELLER_RATIO) > 0;
        let person = if hot { last_person(event) / HOT_EVERY * HOT_EVERY } else { any_person(Self::random(key, event), event) };
        (person + FIRST_ID) as i64
    }

    /// Who bids.
    #[inline]
    pub fn bidder(hot_key: u64, key: u64, event: u64) -> i64 {
        let hot = below(Self::random(hot_key, event), HOT_BIDDER_RATIO) > 0;
        // one after the hot seller, so that they are not the same
        let person = if hot { last_person(event) / HOT_EVERY * HOT_EVERY + 1 } else { any_person(Self::random(key, event), event) };
        (person + FIRST_ID) as i64
    }

    /// What the bid is for.
    #[inline]
    pub fn bid_auction(hot_key: u64, key: u64, event: u64) -> i64 {
        let last = last_auction(event);
        let hot = below(Self::random(hot_key, event), HOT_AUCTION_RATIO) > 0;
        let auction = if hot {
            last / HOT_EVERY * HOT_EVERY
        } else {
            let oldest = last.saturating_sub(AUCTIONS_IN_FLIGHT);
            oldest + below(Self::random(key, event), last - oldest + 1 + ID_LEAD)
        };
        (auction + FIRST_ID) as i64
    }

    /// A category of auctions.
    #[inline]
    pub fn category(key: u64, event: u64) -> i64 {
        (FIRST_CATEGORY + below(Self::random(key, event), CATEGORIES)) as i64
    }

    /// The bid's channel: a place in [`HOT_CHANNELS`], or that many plus the number of another channel.
    #[inline]
    pub fn channel(hot_key: u64, key: u64, event: u64) -> usize {
        let random = Self::random(key, event);
        let hot = HOT_CHANNELS.len() as u64;
        let channel = if below(Self::random(hot_key, event), 2) > 0 { below(random, hot) } else { hot + below(random, CHANNELS) };
        channel as usize
    }
}

/// How many persons there are at the event, less one.
#[inline]
fn last_person(event: u64) -> u64 {
    event / EVENTS_PER_ROUND
}

/// How many auctions there are at the event, less one; 0 also before the first one.
#[inline]
fn last_auction(event: u64) -> u64 {
    let (round, place) = (event / EVENTS_PER_ROUND, event % EVENTS_PER_ROUND);
    let begun = place.min(AUCTIONS_PER_ROUND + PERSONS_PER_ROUND - 1).saturating_sub(PERSONS_PER_ROUND - 1);
    (round * AUCTIONS_PER_ROUND + begun).saturating_sub(1)
}

/// A person who is active at the event, or joins soon.
#[inline]
fn any_person(random: u64, event: u64) -> u64 {
    let persons = last_person(event) + 1;
    let active = persons.min(PERSONS_ACTIVE);
    persons - active + below(random, active + ID_LEAD)
}

/// Prices between 1.00 and 1,000,000.00, in cents, spread evenly over the logarithm.
pub struct Prices {
    powers: Vec<f64>,
}

const PRICE_STEPS: usize = 4096;
/// 10^(6/4096)
const PRICE_STEP: f64 = 1.003_378_622_102_704_8;

impl Prices {
    /// The table of powers. It uses multiplication only, so that every machine has the same.
    pub fn new() -> Prices {
        let powers = std::iter::successors(Some(100.0), |p| Some(p * PRICE_STEP)).take(PRICE_STEPS + 1).collect();
        Prices { powers }
    }

    /// The price of a random number.
    #[inline]
    pub fn price(&self, random: u64) -> i64 {
        let step = (random >> 52) as usize;
        let part = (random & ((1 << 52) - 1)) as f64 / (1u64 << 52) as f64;
        let (low, high) = (self.powers[step], self.powers[step + 1]);
        (low + part * (high - low)).round() as i64
    }
}

impl Default for Prices {
    fn default() -> Self {
        Prices::new()
    }
}
