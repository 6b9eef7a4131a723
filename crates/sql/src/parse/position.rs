//! Lines and columns to characters and bytes.

use sqlparser::tokenizer::{Location, TokenWithSpan};

/// Where the lines of a text begin.
#[derive(Clone, Debug)]
pub struct Positions {
    /// Per line: characters before it.
    lines: Vec<usize>,
    /// Byte offset of every character, and of the end.
    bytes: Vec<usize>,
}

impl Positions {
    /// Of this text.
    pub fn new(text: &str) -> Self {
        let mut lines = vec![0];
        let mut bytes = Vec::with_capacity(text.len() + 1);
        for (number, (at, c)) in text.char_indices().enumerate() {
            bytes.push(at);
            if c == '\n' {
                lines.push(number + 1);
            }
        }
        bytes.push(text.len());
        Positions { lines, bytes }
    }

    /// The 1-based character position of a 1-based line and column; 0 if they name no place.
    pub fn character(&self, line: u64, column: u64) -> usize {
        if line == 0 {
            return 0;
        }
        let start = self.lines.get(line as usize - 1).copied().unwrap_or(self.bytes.len() - 1);
        (start + (column as usize).max(1)).min(self.bytes.len())
    }

    /// The tokens as if the text were one line: from here on a column is PostgreSQL's character position, in
    /// tokens, in the syntax tree and in what the planner says of it.
    pub fn flatten(&self, tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
        let flat = |at: Location| Location { line: 1, column: self.character(at.line, at.column) as u64 };
        let mut tokens = tokens;
        for token in &mut tokens {
            token.span.start = flat(token.span.start);
            token.span.end = flat(token.span.end);
        }
        tokens
    }

    /// The byte offset of a line and column.
    pub fn byte(&self, line: u64, column: u64) -> usize {
        let character = self.character(line, column).saturating_sub(1);
        self.bytes.get(character).or(self.bytes.last()).copied().unwrap_or(0)
    }

    /// The position after the last character.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }
}
