//! Columns of many events at once.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use millpond_common::Result;

use super::generator::{CHANNELS, Draw, Generator, HOT_CHANNELS, Prices, below};
use super::strings::{Randoms, Texts};
use super::tables::{Attribute, Column, Events, Kind, events_of};

const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// The mean size of an event in bytes, and what its other columns have of it; `extra` fills the rest, a fifth more or less.
const PERSON_BYTES: (u64, u64) = (200, 70);
const AUCTION_BYTES: (u64, u64) = (500, 110);
const BID_BYTES: (u64, u64) = (100, 32);

/// Makes columns.
pub struct Values {
    generator: Generator,
    prices: Prices,
    /// Names and addresses of all channels; empty when no column needs them.
    channels: Vec<(String, String)>,
}

impl Values {
    /// Prepares for making some columns.
    pub fn new(generator: Generator, columns: &[Column]) -> Values {
        let with_channels = columns.iter().any(|c| {
            matches!(c, Column::Of(_, Attribute::Channel | Attribute::Url) | Column::Wide(_, Attribute::Channel | Attribute::Url))
        });
        let channels = if with_channels { channels(&generator) } else { vec![] };
        Values { generator, prices: Prices::new(), channels }
    }

    /// A column of the events.
    pub fn array(&self, column: Column, events: &Events) -> Result<ArrayRef> {
        match (column, events) {
            (Column::Of(kind, attribute), Events::List(list)) => self.attribute(kind, attribute, list),
            (Column::Of(kind, attribute) | Column::Wide(kind, attribute), Events::All(range)) => {
                let own = events_of(kind, range);
                let values = self.attribute(kind, attribute, &own)?;
                let mut places = vec![None; (range.end - range.start) as usize];
                for (place, event) in own.iter().enumerate() {
                    places[(event - range.start) as usize] = Some(place as u32);
                }
                Ok(take(&values, &UInt32Array::from(places), None)?)
            }
            (Column::Wide(kind, attribute), Events::List(list)) => self.attribute(kind, attribute, list),
            (Column::EventType, Events::All(range)) => Ok(integers(range.clone(), |e| Kind::of(e) as i64)),
            (Column::EventType, Events::List(list)) => Ok(integers(list.iter().copied(), |e| Kind::of(e) as i64)),
            (Column::EventTime, Events::All(range)) => Ok(times(range.clone(), |e| self.generator.time(e))),
            (Column::EventTime, Events::List(list)) => Ok(times(list.iter().copied(), |e| self.generator.time(e))),
        }
    }

    fn attribute(&self, kind: Kind, attribute: Attribute, events: &[u64]) -> Result<ArrayRef> {
        let g = &self.generator;
        let all = || events.iter().copied();
        Ok(match attribute {
            Attribute::DateTime => times(all(), |e| g.time(e)),
            Attribute::Id if kind == Kind::Person => integers(all(), Generator::person),
            Attribute::Id => integers(all(), Generator::auction),
            Attribute::Expires => {
                let key = g.key(Draw::Expires);
                times(all(), |e| g.expires(key, e))
            }
            Attribute::InitialBid => {
                let key = g.key(Draw::InitialBid);
                integers(all(), |e| self.prices.price(Generator::random(key, e)))
            }
            Attribute::Reserve => {
                let (bid, more) = (g.key(Draw::InitialBid), g.key(Draw::Reserve));
                integers(all(), |e| self.prices.price(Generator::random(bid, e)) + self.prices.price(Generator::random(more, e)))
            }
            Attribute::Price => {
                let key = g.key(Draw::Price);
                integers(all(), |e| self.prices.price(Generator::random(key, e)))
            }
            Attribute::Seller => {
                let (hot, any) = (g.key(Draw::SellerHot), g.key(Draw::Seller));
                integers(all(), |e| Generator::seller(hot, any, e))
            }
            Attribute::Bidder => {
                let (hot, any) = (g.key(Draw::BidderHot), g.key(Draw::Bidder));
                integers(all(), |e| Generator::bidder(hot, any, e))
            }
            Attribute::Auction => {
                let (hot, any) = (g.key(Draw::AuctionHot), g.key(Draw::Auction));
                integers(all(), |e| Generator::bid_auction(hot, any, e))
            }
            Attribute::Category => {
                let key = g.key(Draw::Category);
                integers(all(), |e| Generator::category(key, e))
            }
            Attribute::Name => {
                let (first, last) = (g.key(Draw::FirstName), g.key(Draw::LastName));
                texts(events, 16, |e, out| {
                    out.add(pick(&FIRST_NAMES, Generator::random(first, e)));
                    out.add(" ");
                    out.add(pick(&LAST_NAMES, Generator::random(last, e)));
                })?
            }
            Attribute::EmailAddress => random_texts(events, 16, g.key(Draw::Email), |randoms, out| {
                out.add_word(randoms, 7, b'_');
                out.add("@");
                out.add_word(randoms, 5, b'_');
                out.add(".com");
            })?,
            Attribute::CreditCard => random_texts(events, 19, g.key(Draw::CreditCard), |randoms, out| {
                for group in 0..4 {
                    out.add(if group > 0 { " " } else { "" });
                    out.add_digits(below(randoms.draw(), 10_000));
                }
            })?,
            Attribute::City => picked(events, &CITIES, g.key(Draw::City))?,
            Attribute::State => picked(events, &STATES, g.key(Draw::State))?,
            Attribute::ItemName => random_texts(events, 12, g.key(Draw::ItemName), |randoms, out| out.add_word(randoms, 20, b' '))?,
            Attribute::Description => random_texts(events, 52, g.key(Draw::Description), |randoms, out| out.add_word(randoms, 100, b' '))?,
            Attribute::Channel => self.channel(events, |(name, _)| name)?,
            Attribute::Url => self.channel(events, |(_, url)| url)?,
            Attribute::Extra => {
                let (draw, (mean, others)) = match kind {
                    Kind::Person => (Draw::PersonExtra, PERSON_BYTES),
                    Kind::Auction => (Draw::AuctionExtra, AUCTION_BYTES),
                    Kind::Bid => (Draw::BidExtra, BID_BYTES),
                };
                let rest = mean - others;
                random_texts(events, rest as usize, g.key(draw), |randoms, out| {
                    let length = rest - rest / 5 + below(randoms.draw(), 2 * rest / 5);
                    out.add_letters(randoms, length as usize, b' ');
                })?
            }
        })
    }

    fn channel(&self, events: &[u64], part: impl Fn(&(String, String)) -> &String) -> Result<ArrayRef> {
        let (hot, any) = (self.generator.key(Draw::ChannelHot), self.generator.key(Draw::Channel));
        texts(events, 64, |e, out| out.add(part(&self.channels[Generator::channel(hot, any, e)])))
    }
}

/// Every channel with its address, which for nine in ten of the others names the channel.
fn channels(generator: &Generator) -> Vec<(String, String)> {
    let key = generator.key(Draw::ChannelUrl);
    let hot = HOT_CHANNELS.len() as u64;
    let channel = |number: u64| {
        let mut randoms = Randoms::new(Generator::random(key, number));
        let mut url = "https://www.nexmark.com/".to_string();
        for _ in 0..3 {
            let length = 3 + below(randoms.draw(), 2);
            url.extend((0..length).map(|_| char::from(b'a' + below(randoms.draw(), 26) as u8)));
            url.push('/');
        }
        url.push_str("item.htm?query=1");
        match HOT_CHANNELS.get(number as usize) {
            Some(name) => (name.to_string(), url),
            None => {
                let other = number - hot;
                if below(randoms.draw(), 10) > 0 {
                    let id = (other as i32).reverse_bits().unsigned_abs();
                    url.push_str(&format!("&channel_id={id}"));
                }
                (format!("channel-{other}"), url)
            }
        }
    };
    (0..hot + CHANNELS).map(channel).collect()
}

fn integers(events: impl Iterator<Item = u64>, value: impl Fn(u64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(events.map(value)))
}

fn times(events: impl Iterator<Item = u64>, value: impl Fn(u64) -> i64) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(events.map(value)))
}

fn texts(events: &[u64], bytes_each: usize, write: impl Fn(u64, &mut Texts)) -> Result<ArrayRef> {
    let mut out = Texts::new(events.len(), bytes_each);
    for event in events {
        write(*event, &mut out);
        out.end();
    }
    out.finish()
}

fn random_texts(events: &[u64], bytes_each: usize, key: u64, write: impl Fn(&mut Randoms, &mut Texts)) -> Result<ArrayRef> {
    texts(events, bytes_each, |event, out| write(&mut Randoms::new(Generator::random(key, event)), out))
}

fn picked(events: &[u64], from: &[&'static str], key: u64) -> Result<ArrayRef> {
    texts(events, 10, |event, out| out.add(pick(from, Generator::random(key, event))))
}

fn pick(from: &[&'static str], random: u64) -> &'static str {
    from[below(random, from.len() as u64) as usize]
}
