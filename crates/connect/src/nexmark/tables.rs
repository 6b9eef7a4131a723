//! The columns of persons, auctions and bids.

use std::ops::Range;

use arrow_schema::Field;
use millpond_common::SqlType;

use super::generator::{AUCTIONS_PER_ROUND, BIDS_PER_ROUND, EVENTS_PER_ROUND, PERSONS_PER_ROUND};

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody joins.
    Person,
    /// Somebody offers something.
    Auction,
    /// Somebody bids for it.
    Bid,
}

impl Kind {
    /// All of them, in the order in which a round of events has them.
    pub const ALL: [Kind; 3] = [Kind::Person, Kind::Auction, Kind::Bid];

    /// The places in a round of events that are of this kind.
    pub fn places(self) -> Range<u64> {
        match self {
            Kind::Person => 0..PERSONS_PER_ROUND,
            Kind::Auction => PERSONS_PER_ROUND..PERSONS_PER_ROUND + AUCTIONS_PER_ROUND,
            Kind::Bid => PERSONS_PER_ROUND + AUCTIONS_PER_ROUND..PERSONS_PER_ROUND + AUCTIONS_PER_ROUND + BIDS_PER_ROUND,
        }
    }

    /// The kind of an event.
    pub fn of(event: u64) -> Kind {
        let place = event % EVENTS_PER_ROUND;
        if Kind::Person.places().contains(&place) {
            Kind::Person
        } else if Kind::Auction.places().contains(&place) {
            Kind::Auction
        } else {
            Kind::Bid
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Person => "person",
            Kind::Auction => "auction",
            Kind::Bid => "bid",
        }
    }

    fn attributes(self) -> &'static [Attribute] {
        use Attribute as A;
        match self {
            Kind::Person => &[A::Id, A::Name, A::EmailAddress, A::CreditCard, A::City, A::State, A::DateTime, A::Extra],
            Kind::Auction => {
                &[A::Id, A::ItemName, A::Description, A::InitialBid, A::Reserve, A::DateTime, A::Expires, A::Seller, A::Category, A::Extra]
            }
            Kind::Bid => &[A::Auction, A::Bidder, A::Price, A::Channel, A::Url, A::DateTime, A::Extra],
        }
    }
}

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the columns'
pub enum Attribute {
    Id,
    Name,
    EmailAddress,
    CreditCard,
    City,
    State,
    DateTime,
    Extra,
    ItemName,
    Description,
    InitialBid,
    Reserve,
    Expires,
    Seller,
    Category,
    Auction,
    Bidder,
    Price,
    Channel,
    Url,
}

impl Attribute {
    fn name(self) -> &'static str {
        match self {
            Attribute::Id => "id",
            Attribute::Name => "name",
            Attribute::EmailAddress => "email_address",
            Attribute::CreditCard => "credit_card",
            Attribute::City => "city",
            Attribute::State => "state",
            Attribute::DateTime => "date_time",
            Attribute::Extra => "extra",
            Attribute::ItemName => "item_name",
            Attribute::Description => "description",
            Attribute::InitialBid => "initial_bid",
            Attribute::Reserve => "reserve",
            Attribute::Expires => "expires",
            Attribute::Seller => "seller",
            Attribute::Category => "category",
            Attribute::Auction => "auction",
            Attribute::Bidder => "bidder",
            Attribute::Price => "price",
            Attribute::Channel => "channel",
            Attribute::Url => "url",
        }
    }

    fn sql_type(self) -> SqlType {
        match self {
            Attribute::DateTime | Attribute::Expires => SqlType::Timestamp,
            Attribute::Id
            | Attribute::InitialBid
            | Attribute::Reserve
            | Attribute::Seller
            | Attribute::Category
            | Attribute::Auction
            | Attribute::Bidder
            | Attribute::Price => SqlType::BigInt,
            Attribute::Name
            | Attribute::EmailAddress
            | Attribute::CreditCard
            | Attribute::City
            | Attribute::State
            | Attribute::Extra
            | Attribute::ItemName
            | Attribute::Description
            | Attribute::Channel
            | Attribute::Url => SqlType::Text,
        }
    }
}

/// A column of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// In a source of one kind: an attribute of its events.
    Of(Kind, Attribute),
    /// In the combined source: an attribute of one kind's events, NULL for the others.
    Wide(Kind, Attribute),
    /// In the combined source: 0 for persons, 1 for auctions, 2 for bids.
    EventType,
    /// In the combined source: the event's time, whatever its kind.
    EventTime,
}

impl Column {
    /// Its name.
    pub fn name(&self) -> String {
        match self {
            Column::Of(_, attribute) => attribute.name().to_string(),
            Column::Wide(kind, attribute) => format!("{}_{}", kind.name(), attribute.name()),
            Column::EventType => "event_type".to_string(),
            Column::EventTime => "date_time".to_string(),
        }
    }

    /// Its field.
    pub fn field(&self) -> Field {
        let (sql_type, nullable) = match self {
            Column::Of(_, attribute) => (attribute.sql_type(), false),
            Column::Wide(_, attribute) => (attribute.sql_type(), true),
            Column::EventType => (SqlType::BigInt, false),
            Column::EventTime => (SqlType::Timestamp, false),
        };
        sql_type.field(&self.name(), nullable)
    }
}

/// What a source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Events of one kind.
    One(Kind),
    /// All events.
    Combined,
}

/// Numbers of events: of one kind, or all between two numbers.
pub enum Events {
    /// These.
    List(Vec<u64>),
    /// All of these.
    All(Range<u64>),
}

impl Stream {
    /// From the option `type`.
    pub fn parse(text: &str) -> Option<Stream> {
        Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(text)).map(Stream::One)
    }

    /// Its columns.
    pub fn columns(self) -> Vec<Column> {
        match self {
            Stream::One(kind) => kind.attributes().iter().map(|a| Column::Of(kind, *a)).collect(),
            Stream::Combined => [Column::EventType, Column::EventTime]
                .into_iter()
                .chain(Kind::ALL.into_iter().flat_map(|k| k.attributes().iter().map(move |a| Column::Wide(k, *a))))
                .collect(),
        }
    }

    /// How many of a round's events it gives.
    pub fn events_per_round(self) -> u64 {
        match self {
            Stream::One(kind) => kind.places().end - kind.places().start,
            Stream::Combined => EVENTS_PER_ROUND,
        }
    }

    /// Its events within a range, and how many they are.
    pub fn events(self, range: &Range<u64>) -> (Events, usize) {
        let Stream::One(kind) = self else {
            return (Events::All(range.clone()), range.end.saturating_sub(range.start) as usize);
        };
        let list = events_of(kind, range);
        let rows = list.len();
        (Events::List(list), rows)
    }
}

/// The events of one kind within a range.
pub fn events_of(kind: Kind, range: &Range<u64>) -> Vec<u64> {
    let rounds = range.start / EVENTS_PER_ROUND..range.end.div_ceil(EVENTS_PER_ROUND);
    let events = rounds.flat_map(|round| kind.places().map(move |place| round * EVENTS_PER_ROUND + place));
    events.filter(|event| range.contains(event)).collect()
}
