//! Numbers by the patterns of `to_char`: `9`, `0`, `.`, `,`, `FM`, signs, and text between.

/// Stands for a sign that follows digits, until it is known.
const SIGN: char = '\u{1}';

/// A picture of a number, read from a pattern.
#[derive(Default)]
struct Picture {
    /// What stands where, in order.
    parts: Vec<Part>,
    /// Digits before and after the point.
    whole: usize,
    fraction: usize,
    /// From which digit on zeros are shown.
    zero_from: Option<usize>,
    /// The last digit after the point that is shown even if it is zero.
    zero_to: usize,
    plain: bool,
    /// Where the sign goes, if the pattern says so.
    sign: Option<Sign>,
}

enum Part {
    Digit,
    Point,
    Comma,
    Text(char),
    Sign,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `S`: always shown.
    Anchored,
    /// `MI`: a minus or a blank.
    Minus,
    /// `PL`: a plus or a blank.
    Plus,
    /// `PR`: `<1>`
    Brackets,
}

/// A number, given by its digits, as the pattern shows it.
pub(super) fn format_number(number: &str, pattern: &str) -> String {
    let picture = read(pattern);
    let (negative, unsigned) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let Some((mut whole, fraction, is_zero)) = rounded(unsigned, picture.fraction) else { return number.to_string() };
    if whole.is_empty() && (picture.fraction == 0 || is_zero && picture.plain) {
        whole.push('0');
    }
    let negative = negative && !is_zero;
    let overflow = whole.len() > picture.whole;
    let lead = picture.whole.saturating_sub(whole.len());
    let shown_from = picture.zero_from.map_or(lead, |zero| zero.min(lead));
    let mut fraction_shown = fraction.len();
    if picture.plain {
        let needed = fraction.trim_end_matches('0').len();
        fraction_shown = needed.max(picture.zero_to);
    }
    let mut out = String::new();
    let (mut digit, mut after_point, mut blanks) = (0usize, false, 0usize);
    let mut body = String::new();
    for part in &picture.parts {
        match part {
            Part::Digit if overflow => body.push('#'),
            Part::Digit if after_point => {
                let at = digit - picture.whole;
                if at < fraction_shown {
                    body.push(char::from(fraction.as_bytes().get(at).copied().unwrap_or(b'0')));
                }
                digit += 1;
            }
            Part::Digit => {
                if digit >= lead {
                    body.push(char::from(whole.as_bytes().get(digit - lead).copied().unwrap_or(b'0')));
                } else if digit >= shown_from {
                    body.push('0');
                } else if body.is_empty() {
                    blanks += 1;
                }
                digit += 1;
            }
            Part::Point => {
                after_point = true;
                body.push('.');
            }
            Part::Comma if body.is_empty() => blanks += 1,
            Part::Comma => body.push(','),
            Part::Text(c) if body.is_empty() => {
                out.push(*c);
            }
            Part::Text(c) => body.push(*c),
            Part::Sign if body.is_empty() => {}
            Part::Sign => body.push(SIGN),
        }
    }
    let sign = match (picture.sign, negative) {
        (None, true) | (Some(Sign::Anchored | Sign::Minus), true) => "-",
        (Some(Sign::Anchored), false) | (Some(Sign::Plus), false) => "+",
        (Some(Sign::Brackets), true) => "<",
        _ if picture.plain => "",
        _ => " ",
    };
    let padding = if picture.plain { String::new() } else { " ".repeat(blanks) };
    match picture.sign {
        Some(Sign::Minus | Sign::Plus) => format!("{out}{padding}{}", body.replace(SIGN, sign)),
        Some(Sign::Anchored) if body.ends_with(SIGN) => format!("{out}{padding}{}", body.replace(SIGN, sign)),
        Some(Sign::Brackets) => {
            let close = match (negative, picture.plain) {
                (true, _) => ">",
                (false, true) => "",
                (false, false) => " ",
            };
            format!("{out}{padding}{sign}{}{close}", body.replace(SIGN, ""))
        }
        _ => format!("{out}{padding}{sign}{}", body.replace(SIGN, "")),
    }
}

/// Digits before and after the point, rounded; whether nothing but zeros is left. `None` for NaN and infinities.
fn rounded(unsigned: &str, digits: usize) -> Option<(String, String, bool)> {
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let exponent: i32 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut all = format!("{whole}{fraction}").into_bytes();
    if !all.iter().all(u8::is_ascii_digit) || exponent.unsigned_abs() > 400 {
        return None;
    }
    let mut point = whole.len() as i32 + exponent;
    while point < 0 {
        all.insert(0, b'0');
        point += 1;
    }
    let point = point as usize;
    let end = point + digits;
    all.resize(all.len().max(end), b'0');
    let up = all.get(end).is_some_and(|d| *d >= b'5');
    all.truncate(end);
    let mut carry = up;
    for digit in all.iter_mut().rev() {
        if !carry {
            break;
        }
        carry = *digit == b'9';
        *digit = if carry { b'0' } else { *digit + 1 };
    }
    let mut text = String::from_utf8(all).ok()?;
    let mut split = point;
    if carry {
        text.insert(0, '1');
        split += 1;
    }
    let is_zero = text.bytes().all(|d| d == b'0');
    let (whole, fraction) = text.split_at(split);
    Some((whole.trim_start_matches('0').to_string(), fraction.to_string(), is_zero))
}

fn read(pattern: &str) -> Picture {
    let mut picture = Picture::default();
    let mut after_point = false;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let upper = rest.get(..2).unwrap_or_default().to_ascii_uppercase();
        let two = match upper.as_str() {
            "FM" => {
                picture.plain = true;
                true
            }
            "MI" | "PL" | "PR" | "SG" => {
                picture.sign = Some(match upper.as_str() {
                    "MI" => Sign::Minus,
                    "PL" => Sign::Plus,
                    "PR" => Sign::Brackets,
                    _ => Sign::Anchored,
                });
                picture.parts.push(Part::Sign);
                true
            }
            _ => false,
        };
        if two {
            rest = &rest[2..];
            continue;
        }
        rest = &rest[first.len_utf8()..];
        match first {
            '9' | '0' => {
                let at = if after_point { picture.fraction } else { picture.whole };
                if first == '0' && after_point {
                    picture.zero_to = at + 1;
                } else if first == '0' && picture.zero_from.is_none() {
                    picture.zero_from = Some(at);
                }
                *(if after_point { &mut picture.fraction } else { &mut picture.whole }) += 1;
                picture.parts.push(Part::Digit);
            }
            '.' | 'D' | 'd' if !after_point => {
                after_point = true;
                picture.parts.push(Part::Point);
            }
            ',' | 'G' | 'g' => picture.parts.push(Part::Comma),
            'S' | 's' => {
                picture.sign = Some(Sign::Anchored);
                picture.parts.push(Part::Sign);
            }
            '"' => {
                let end = rest.find('"').unwrap_or(rest.len());
                picture.parts.extend(rest[..end].chars().map(Part::Text));
                rest = rest.get(end + 1..).unwrap_or_default();
            }
            other => picture.parts.push(Part::Text(other)),
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::format_number;

    #[test]
    fn as_postgresql_15_answers() {
        for (number, pattern, expected) in [
            ("0.5", "9.99", "  .50"),
            ("0", "999", "   0"),
            ("-1", "999", "  -1"),
            ("12345.678", "FM999,999.00", "12,345.68"),
            ("12.5", "FM99.99", "12.5"),
            ("0.1", "FM9.99", ".1"),
            ("1234", "999", " ###"),
            ("-5", "S999", "  -5"),
            ("5", "999S", "  5+"),
            ("-5", "999MI", "  5-"),
            ("-5", "999PR", "  <5>"),
            ("5", "999PR", "   5 "),
            ("1234567.891", "$9,999,999.99", "$ 1,234,567.89"),
            ("12", "0009", " 0012"),
            ("0", "FM9", "0"),
            ("0.0", "FM9.9", "0."),
            ("1.0", "FM9.00", "1.00"),
            ("125", "\"a\"999", "a 125"),
            ("0.999", "9.99", " 1.00"),
            ("0", "9.9", "  .0"),
            ("-0.5", "0.9", "-0.5"),
            ("1", "999,999", "       1"),
        ] {
            assert_eq!(format_number(number, pattern), expected, "{number} as {pattern}");
        }
    }
}
