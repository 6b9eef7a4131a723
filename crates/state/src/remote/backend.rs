//! Object stores as they are used here: few operations, our errors, and files that are synced.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use millpond_common::{Error, Result, SqlState};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};

use super::options::RemoteOptions;
use super::runtime::blocking;

/// How many parts of one file are on their way at the same time.
const PARTS_IN_FLIGHT: usize = 2;

/// Names below a folder, with their sizes.
pub(super) type Listed = BTreeMap<String, u64>;

/// The object store behind a URL. Names are relative to the URL's path.
pub(super) struct Backend {
    store: Arc<dyn ObjectStore>,
    /// Of a `file:` URL: its directory, since files must be synced there.
    root: Option<PathBuf>,
    url: String,
}

/// A cloud's builder, from the environment and then our options.
macro_rules! cloud {
    ($builder:ty, $url:expr, $options:expr) => {{
        let timeout = ("timeout".to_owned(), format!("{} ms", $options.request_timeout.as_millis()));
        let mut builder = <$builder>::from_env().with_url($url).with_retry(retry($options));
        for (key, value) in std::iter::once(&timeout).chain(&$options.config) {
            let key = key.to_ascii_lowercase().parse().map_err(|_| unknown_key(key))?;
            builder = builder.with_config(key, value);
        }
        builder
    }};
}

impl Backend {
    pub(super) fn open(url: &str, options: &RemoteOptions) -> Result<Backend> {
        let invalid = |what: &str| Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("checkpoint storage: {what}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("not a URL").with_hint(SCHEMES))?;
        if scheme == "file" {
            return Backend::open_directory(url, rest);
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if host.split_once('@').is_some_and(|(user, _)| user.contains(':')) || rest.contains('?') {
            return Err(invalid("the URL contains a secret or parameters").with_hint("Give keys as settings or in the environment."));
        }
        if host.is_empty() {
            return Err(invalid("the URL names no bucket").with_detail(format!("The URL is \"{url}\".")));
        }
        let store: Result<Arc<dyn ObjectStore>, StoreError> = match scheme {
            "s3" => {
                let mut builder = cloud!(AmazonS3Builder, url, options);
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                if endpoint.is_some_and(|endpoint| is_loopback(&endpoint)) {
                    builder = builder.with_allow_http(true);
                }
                builder.build().map(|s| Arc::new(s) as _)
            }
            "gs" => cloud!(GoogleCloudStorageBuilder, url, options).build().map(|s| Arc::new(s) as _),
            "az" => cloud!(MicrosoftAzureBuilder, url, options).build().map(|s| Arc::new(s) as _),
            "hdfs" => {
                let hint = "Mount it, and name it as file:///…, or use its S3 gateway.";
                return Err(Error::unsupported("checkpoints cannot be stored in HDFS", hint));
            }
            _ => return Err(invalid(&format!("unknown scheme \"{scheme}\"")).with_hint(SCHEMES)),
        };
        let prefix = ObjectPath::from_url_path(path).map_err(|e| invalid(&e.to_string()))?;
        let store = Arc::new(PrefixStore::new(store.map_err(|e| failed(url, "open", &e))?, prefix));
        Ok(Backend { store, root: None, url: url.to_owned() })
    }

    fn open_directory(url: &str, path: &str) -> Result<Backend> {
        let root = PathBuf::from(path);
        if !root.is_absolute() {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "checkpoint storage: the path is not absolute")
                .with_detail(format!("The URL is \"{url}\"."))
                .with_hint("Write it with three slashes: file:///path."));
        }
        // Not its parents: they may be the place of a disk that is not mounted.
        match std::fs::create_dir(&root) {
            Ok(()) => root.parent().map_or(Ok(()), crate::directory::sync)?,
            Err(_) if root.is_dir() => {}
            Err(e) => {
                return Err(Error::new(SqlState::IO_ERROR, format!("checkpoint storage: cannot make \"{}\": {e}", root.display()))
                    .with_hint("The directory above it must exist, and the server's user must be allowed to write there."));
            }
        }
        let store = LocalFileSystem::new_with_prefix(&root).map_err(|e| {
            Error::new(SqlState::IO_ERROR, format!("checkpoint storage: cannot use \"{}\"", root.display()))
                .with_detail(describe(&e))
                .with_hint("It must be a directory.")
        })?;
        Ok(Backend { store: Arc::new(store), root: Some(root), url: url.to_owned() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Writes an object, replacing what had this name.
    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.store.put(&name.into(), bytes.into()).await.map_err(|e| failed(name, "write", &e))?;
        self.persist(name).await
    }

    /// Writes an object, unless there is one with this name: then `false`.
    pub(super) async fn put_new(&self, name: &str, bytes: Bytes) -> Result<bool> {
        match self.store.put_opts(&name.into(), bytes.into(), PutMode::Create.into()).await {
            Ok(_) => self.persist(name).await.map(|()| true),
            Err(StoreError::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(failed(name, "write", &e)),
        }
    }

    /// Writes a file as an object, in parts of this size. The file must have this many bytes.
    pub(super) async fn put_file(&self, name: &str, path: &Path, size: u64, part: u64) -> Result<()> {
        if size <= part {
            return self.put(name, read_part(path, 0..size).await?).await;
        }
        let mut upload = self.store.put_multipart(&name.into()).await.map_err(|e| failed(name, "write", &e))?;
        let sent = async {
            let mut running = FuturesUnordered::new();
            let mut begin = 0;
            while begin < size {
                let end = (begin + part).min(size);
                if running.len() >= PARTS_IN_FLIGHT {
                    running.try_next().await.map_err(|e| failed(name, "write", &e))?;
                }
                let bytes = read_part(path, begin..end).await?;
                running.push(upload.put_part(bytes.into()));
                begin = end;
            }
            running.try_collect::<Vec<()>>().await.map_err(|e| failed(name, "write", &e))?;
            upload.complete().await.map_err(|e| failed(name, "write", &e))
        };
        if let Err(error) = sent.await {
            // Parts that stay behind cost money until the bucket's rules delete them; nothing else depends on it.
            drop(upload.abort().await);
            return Err(error);
        }
        self.persist(name).await
    }

    /// A whole object, which must be small. A missing one is damage.
    pub(super) async fn get(&self, name: &str) -> Result<Bytes> {
        let read = async { self.store.get(&name.into()).await?.bytes().await };
        read.await.map_err(|e| failed(name, "read", &e))
    }

    /// A part of an object.
    pub(super) async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.store.get_range(&name.into(), range).await.map_err(|e| failed(name, "read", &e))
    }

    /// All names that begin with `folder/`.
    pub(super) async fn list(&self, folder: &str) -> Result<Listed> {
        let names = self.store.list(Some(&folder.into())).map_ok(|meta| (meta.location.to_string(), meta.size));
        names.try_collect().await.map_err(|e| match e {
            StoreError::NotFound { .. } => Error::new(SqlState::IO_ERROR, format!("checkpoint storage \"{}\" does not exist", self.url))
                .with_detail(describe(&e))
                .with_hint("Create the bucket, or correct its name."),
            e => failed(folder, "list", &e),
        })
    }

    /// Deletes objects; those that are not there are no error.
    pub(super) async fn delete(&self, names: &[String]) -> Result<()> {
        let names = names.iter().map(|n| Ok(ObjectPath::from(n.as_str()))).collect::<Vec<_>>();
        let mut results = self.store.delete_stream(stream::iter(names).boxed());
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(failed("objects", "delete", &e)),
            }
        }
        Ok(())
    }

    /// Deletes what interrupted writes to a directory have left, if the object that it was to become is one that `ours`
    /// wants gone. Elsewhere, nobody sees such things.
    pub(super) async fn sweep(&self, ours: impl Fn(&str) -> bool + Send + 'static) -> Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        blocking(move || {
            let mut dirs = vec![root.clone()];
            while let Some(dir) = dirs.pop() {
                for entry in std::fs::read_dir(dir)? {
                    let entry = entry?;
                    let path = entry.path();
                    let name = path.strip_prefix(&root).ok().and_then(Path::to_str).and_then(|name| name.split_once('#'));
                    if entry.file_type()?.is_dir() {
                        dirs.push(path);
                    } else if name.is_some_and(|(name, attempt)| attempt.parse::<u32>().is_ok() && ours(name)) {
                        std::fs::remove_file(&path)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// Files of a directory survive a power failure only if they are synced.
    async fn persist(&self, name: &str) -> Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let path = root.join(name);
        blocking(move || {
            File::open(&path)?.sync_all()?;
            for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&root)) {
                crate::directory::sync(dir)?;
            }
            Ok(())
        })
        .await
    }
}

const SCHEMES: &str = "Give s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///path.";

/// Part of a file, which must be there in full.
async fn read_part(path: &Path, range: Range<u64>) -> Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let path = path.to_owned();
    blocking(move || {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).map_err(|_| Error::internal("a part is too large"))?];
        File::open(&path)?.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    })
    .await
}

fn retry(options: &RemoteOptions) -> RetryConfig {
    let backoff = BackoffConfig { init_backoff: options.retry_pause, max_backoff: options.retry_pause * 50, base: 2.0 };
    RetryConfig { backoff, max_retries: 1000, retry_timeout: options.retry_timeout }
}

/// Whether an endpoint is on this machine, where encryption protects nothing.
fn is_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.strip_prefix('[').and_then(|h| h.split(']').next()).or(authority.split(':').next()).unwrap_or_default();
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn unknown_key(key: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("checkpoint storage: there is no setting \"{key}\" for it"))
        .with_hint("The names are those of the object store's environment variables, such as aws_endpoint.")
}

/// An object store's error as ours. What is not there but should be, is damage.
fn failed(name: &str, what: &str, error: &StoreError) -> Error {
    let message = format!("checkpoint storage: cannot {what} \"{name}\"");
    let detail = describe(error);
    let io_error = || Error::new(SqlState::IO_ERROR, message.clone()).with_detail(detail.clone());
    match error {
        StoreError::NotFound { .. } if what == "read" => {
            Error::new(SqlState::DATA_CORRUPTED, message).with_detail("There is no such object.")
        }
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            Error::new(SqlState::FEATURE_NOT_SUPPORTED, message).with_detail(detail)
        }
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => io_error().with_hint(KEYS),
        // Not all requests tell this apart.
        _ if ["401", "403"].iter().any(|status| detail.contains(&format!("status code: {status}"))) => io_error().with_hint(KEYS),
        _ => io_error(),
    }
}

const KEYS: &str = "Check the keys, and what they permit.";

/// An error's text, without what may be secret: parameters of URLs (signatures), and the server's answer except for its
/// code and message (answers may repeat the key and what was signed).
fn describe(error: &StoreError) -> String {
    scrub(&error.to_string())
}

fn scrub(text: &str) -> String {
    let element =
        |name: &str| text.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once('<')).map(|(value, _)| value.trim());
    let head = text.split('<').next().unwrap_or_default().trim_end();
    let mut result = head.split(' ').map(|word| word.split('?').next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
    for name in ["Code", "Message"] {
        if let Some(value) = element(name) {
            result = format!("{result} {value}");
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> Error {
        Backend::open(url, &RemoteOptions::default()).err().unwrap()
    }

    #[test]
    fn a_directory_is_made_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}/checkpoints", dir.path().display());
        Backend::open(&url, &RemoteOptions::default()).unwrap();
        assert!(dir.path().join("checkpoints").is_dir());
        Backend::open(&url, &RemoteOptions::default()).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(refused(&format!("file://{}/file", dir.path().display())).hint().is_some());
    }

    #[test]
    fn says_what_is_wrong_with_a_url() {
        assert!(refused("bucket/path").hint().unwrap().contains("s3://"));
        assert!(refused("ftp://host/path").message().contains("unknown scheme \"ftp\""));
        assert!(refused("file://relative/path").hint().unwrap().contains("three slashes"));
        assert!(refused("file:///nonexistent/directory").hint().unwrap().contains("above it must exist"));
        assert!(refused("s3:///path").message().contains("no bucket"));
        assert_eq!(refused("hdfs://host/path").state(), SqlState::FEATURE_NOT_SUPPORTED);
        for url in ["s3://key:s3cret@bucket/path", "az://container/path?sig=s3cret"] {
            let error = refused(url).to_string();
            assert!(error.contains("secret or parameters") && !error.contains("s3cret"), "{error}");
        }
        let options = RemoteOptions { config: vec![("aws_endpiont".into(), "x".into())], ..Default::default() };
        let error = Backend::open("s3://bucket", &options).err().unwrap();
        assert!(error.message().contains("aws_endpiont"), "{error}");
    }

    #[test]
    fn opens_all_clouds_without_asking_them() {
        let key = "c2VjcmV0"; // any base64
        let account = [("azure_storage_account_name", "someone"), ("azure_storage_account_key", key)];
        let google =
            [("google_service_account_key", r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#)];
        let amazon = [("aws_region", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "key"), ("aws_secret_access_key", "secret")];
        for (url, config) in [("s3://bucket/a/b", &amazon[..]), ("gs://bucket", &google), ("az://container/a", &account)] {
            let config = config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let options = RemoteOptions { config, ..Default::default() };
            assert!(!format!("{options:?}").contains("secret\""), "{options:?}");
            assert_eq!(Backend::open(url, &options).unwrap().url(), url);
        }
    }

    #[test]
    fn only_this_machine_may_be_asked_without_encryption() {
        for endpoint in ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:80/x"] {
            assert!(is_loopback(endpoint), "{endpoint}");
        }
        for endpoint in ["http://10.0.0.1", "http://localhost.example.com", "https://127.0.0.1", "http://127.0.0.1.example.com"] {
            assert!(!is_loopback(endpoint), "{endpoint}");
        }
    }

    #[test]
    fn errors_do_not_repeat_secrets() {
        let text = "Error performing GET https://a.b/c?sig=s3cret in 5s: Server returned non-2xx status code: 403 Forbidden: \
                    <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>It does not.</Message>\
                    <AWSAccessKeyId>s3cret</AWSAccessKeyId></Error>";
        let scrubbed = scrub(text);
        assert!(!scrubbed.contains("s3cret"), "{scrubbed}");
        assert!(scrubbed.ends_with("403 Forbidden: SignatureDoesNotMatch It does not."), "{scrubbed}");
        assert!(scrubbed.contains("https://a.b/c in"), "{scrubbed}");
    }
}
