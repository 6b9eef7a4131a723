//! Date patterns.

/// PostgreSQL's pattern for `to_char` of a time as strftime's, which DataFusion wants.
pub(crate) fn strftime(pattern: &str) -> String {
    // Longer patterns first.
    const PATTERNS: [(&str, &str); 28] = [
        ("YYYY", "%Y"),
        ("IYYY", "%G"),
        ("HH24", "%H"),
        ("HH12", "%I"),
        ("MONTH", "%B"),
        ("Month", "%B"),
        ("month", "%B"),
        ("DDD", "%j"),
        ("MON", "%b"),
        ("Mon", "%b"),
        ("mon", "%b"),
        ("DAY", "%A"),
        ("Day", "%A"),
        ("day", "%A"),
        ("YY", "%y"),
        ("MM", "%m"),
        ("DD", "%d"),
        ("Dy", "%a"),
        ("HH", "%I"),
        ("MI", "%M"),
        ("SS", "%S"),
        ("MS", "%3f"),
        ("US", "%6f"),
        ("AM", "%p"),
        ("PM", "%p"),
        ("am", "%P"),
        ("pm", "%P"),
        ("IW", "%V"),
    ];
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        let found = PATTERNS.iter().find(|(p, _)| {
            // Numbers may be written in lower case; words tell by their case how they are written.
            let word = p.starts_with("MON") || *p == "DAY" || p.ends_with('M') && *p != "MM";
            let same = rest.get(..p.len()).is_some_and(|r| r.eq_ignore_ascii_case(p));
            rest.starts_with(p) || (same && !word && p.chars().all(|c| !c.is_lowercase()))
        });
        match found {
            Some((p, replacement)) => {
                out.push_str(replacement);
                rest = rest.get(p.len()..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}
