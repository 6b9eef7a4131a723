//! The settings that every client is told of.

use std::collections::BTreeMap;

use millpond_common::settings::Settings;

/// The names as clients look for them.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// A setting's name as clients look for it.
pub(crate) fn canonical_name(name: &str) -> &str {
    REPORTED.iter().find(|r| r.eq_ignore_ascii_case(name)).copied().unwrap_or(name)
}

/// What a new session reports, in the order of the names: the defaults, and what the session says differs.
pub(crate) fn initial(user: &str, changes: Vec<(String, String)>) -> BTreeMap<String, String> {
    let defaults = Settings::default();
    let mut values = BTreeMap::new();
    for name in REPORTED {
        let value = match *name {
            "in_hot_standby" => "off".to_string(),
            "is_superuser" => "on".to_string(),
            "session_authorization" => user.to_string(),
            setting => defaults.get(setting).unwrap_or_default(),
        };
        values.insert((*name).to_string(), value);
    }
    values.extend(changes.into_iter().map(|(name, value)| (canonical_name(&name).to_string(), value)));
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reported_setting_has_a_value() {
        let values = initial("me", vec![("timezone".into(), "GMT".into())]);
        assert_eq!(values.len(), REPORTED.len());
        assert!(values.iter().all(|(name, value)| !value.is_empty() || name == "application_name"), "{values:?}");
        assert_eq!((values["TimeZone"].as_str(), values["server_version"].as_str()), ("GMT", "15.0"));
    }
}
