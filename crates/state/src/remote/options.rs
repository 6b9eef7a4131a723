//! How to use a remote storage.

use std::fmt;
use std::time::Duration;

/// How to use a remote storage. Secrets in it are not shown by `Debug`.
#[derive(Clone)]
pub struct RemoteOptions {
    /// The object store's own settings, such as `aws_endpoint`, `aws_region`, `aws_access_key_id`,
    /// `aws_secret_access_key`, `google_service_account`, `azure_storage_account_name`, `azure_storage_account_key`,
    /// `allow_http`. What is not here comes from environment variables with these names in upper case.
    pub config: Vec<(String, String)>,
    /// How many files are sent or fetched at the same time.
    pub parallelism: usize,
    /// Larger files travel in parts of this size; at least 5 MiB for most object stores. Two parts of each file on its way
    /// are in memory.
    pub part_bytes: usize,
    /// After this long, a request has failed.
    pub request_timeout: Duration,
    /// A failed request is repeated for this long.
    pub retry_timeout: Duration,
    /// The first pause before that; the next ones are longer.
    pub retry_pause: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        RemoteOptions {
            config: Vec::new(),
            parallelism: 4,
            part_bytes: 8 << 20,
            request_timeout: Duration::from_secs(60),
            retry_timeout: Duration::from_secs(60),
            retry_pause: Duration::from_millis(100),
        }
    }
}

impl fmt::Debug for RemoteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.config.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>();
        f.debug_struct("RemoteOptions")
            .field("config", &keys)
            .field("parallelism", &self.parallelism)
            .field("part_bytes", &self.part_bytes)
            .field("request_timeout", &self.request_timeout)
            .field("retry_timeout", &self.retry_timeout)
            .field("retry_pause", &self.retry_pause)
            .finish()
    }
}
