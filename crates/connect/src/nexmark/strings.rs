//! Random texts.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use millpond_common::Result;

use super::generator::{below, mix};

/// A text is at least so long.
const LENGTH_MIN: u64 = 3;

/// Random numbers that follow from one.
pub struct Randoms(u64);

impl Randoms {
    /// Those that follow from `random`.
    pub fn new(random: u64) -> Randoms {
        Randoms(random)
    }

    /// The next one.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// A column of texts under construction.
pub struct Texts {
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Texts {
    /// None yet, room for some.
    pub fn new(rows: usize, bytes_each: usize) -> Texts {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Texts { offsets, data: Vec::with_capacity(rows * bytes_each) }
    }

    /// Adds to the text that is being made.
    #[inline]
    pub fn add(&mut self, text: &str) {
        self.data.extend_from_slice(text.as_bytes());
    }

    /// Adds `length` lower-case letters, with `special` at one in 14 places.
    pub fn add_letters(&mut self, randoms: &mut Randoms, length: usize, special: u8) {
        let mut left = length;
        while left > 0 {
            let bytes = randoms.draw().to_le_bytes();
            let letters = bytes.map(|b| match (u32::from(b) * 28) >> 8 {
                letter @ 0..26 => b'a' + letter as u8,
                _ => special,
            });
            let taken = left.min(letters.len());
            self.data.extend_from_slice(&letters[..taken]);
            left -= taken;
        }
    }

    /// Adds 3 to `length_max` − 1 letters.
    pub fn add_word(&mut self, randoms: &mut Randoms, length_max: u64, special: u8) {
        let length = LENGTH_MIN + below(randoms.draw(), length_max - LENGTH_MIN);
        self.add_letters(randoms, length as usize, special);
    }

    /// Adds a number of four digits.
    pub fn add_digits(&mut self, number: u64) {
        let digit = |divisor: u64| b'0' + (number / divisor % 10) as u8;
        self.data.extend_from_slice(&[digit(1000), digit(100), digit(10), digit(1)]);
    }

    /// The text is complete.
    #[inline]
    pub fn end(&mut self) {
        self.offsets.push(self.data.len() as i32);
    }

    /// All texts as an array.
    pub fn finish(self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(self.offsets.into());
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.data), None)?))
    }
}
