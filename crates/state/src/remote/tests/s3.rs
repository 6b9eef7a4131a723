//! An object store that speaks as much of S3, and of what Google has made of it, as the client needs, keeps everything in memory, and fails as it is told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use parking_lot::Mutex;

use super::support::{google_options, options};
use crate::remote::RemoteStorage;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is refused with this status, and nothing happens.
    Status(u16),
    /// Nothing happens, and the connection is closed without an answer.
    Close,
    /// It happens, but the connection is closed without an answer.
    LoseAnswer,
    /// The answer breaks off in its middle.
    Truncate,
    /// It happens only after this long.
    Delay(Duration),
}

type Faults = Box<dyn FnMut(&Method, &str) -> Option<Fault> + Send>;

#[derive(Default)]
struct Content {
    objects: BTreeMap<String, Bytes>,
    uploads: HashMap<String, BTreeMap<u32, Bytes>>,
    /// Every request that was carried out: method and key.
    log: Vec<(Method, String)>,
    faults: Option<Faults>,
    ignores_conditions: bool,
    /// Nobody says who he is.
    anonymous: bool,
}

type Shared = Arc<Mutex<Content>>;

/// The server; its content outlives a stop.
pub(super) struct Server {
    /// Of its URLs: `s3` or `gs`.
    scheme: &'static str,
    address: SocketAddr,
    content: Shared,
    /// `None`: stopped, connections are refused.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    pub(super) fn start() -> Server {
        Server::of("s3")
    }

    pub(super) fn of(scheme: &'static str) -> Server {
        let content = Content { anonymous: scheme == "gs", ..Content::default() };
        let mut server = Server { scheme, address: ([127, 0, 0, 1], 0).into(), content: Arc::new(Mutex::new(content)), runtime: None };
        server.listen();
        server
    }

    /// Begins to listen, again if it was stopped: at the same address.
    pub(super) fn listen(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&self.content));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        self.runtime = Some(runtime);
    }

    pub(super) fn stop(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(Duration::from_secs(5));
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn open(&self) -> RemoteStorage {
        let endpoint = self.endpoint();
        let options = if self.scheme == "gs" { google_options(&endpoint) } else { options(Some(&endpoint)) };
        RemoteStorage::open(&format!("{}://bucket/a/b", self.scheme), options).unwrap()
    }

    pub(super) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.content.lock().objects.clone()
    }

    pub(super) fn tamper(&self, key: &str, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>) {
        let mut content = self.content.lock();
        let bytes = content.objects.remove(key).unwrap();
        if let Some(bytes) = change(bytes.to_vec()) {
            content.objects.insert(key.to_owned(), bytes.into());
        }
    }

    /// From now on, this says what goes wrong with each request.
    pub(super) fn faults(&self, faults: impl FnMut(&Method, &str) -> Option<Fault> + Send + 'static) {
        self.content.lock().faults = Some(Box::new(faults));
    }

    pub(super) fn no_faults(&self) {
        self.content.lock().faults = None;
    }

    pub(super) fn ignore_conditions(&self) {
        self.content.lock().ignores_conditions = true;
    }

    /// What was carried out since the last call.
    pub(super) fn take_log(&self) -> Vec<(Method, String)> {
        std::mem::take(&mut self.content.lock().log)
    }

    pub(super) fn unfinished_uploads(&self) -> usize {
        self.content.lock().uploads.len()
    }
}

async fn answer(State(content): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = unescape(parts.uri.path().trim_start_matches('/'));
    let key = path.strip_prefix("bucket").unwrap_or(&path).trim_start_matches('/').to_owned();
    let query = parts.uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let query = query.map(|(k, v)| (k.to_owned(), unescape(v))).collect::<HashMap<_, _>>();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let fault = content.lock().faults.as_mut().and_then(|faults| faults(&parts.method, &key));
    match fault {
        Some(Fault::Status(status)) => return refuse(StatusCode::from_u16(status).unwrap(), "Injected"),
        Some(Fault::Close) => close(),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        None | Some(Fault::LoseAnswer | Fault::Truncate) => {}
    }
    let response = perform(&mut content.lock(), &parts.method, &key, &query, &parts.headers, body);
    match fault {
        Some(Fault::LoseAnswer) => close(),
        Some(Fault::Truncate) => {
            let (head, body) = response.into_parts();
            let bytes = to_bytes(body, usize::MAX).await.unwrap();
            let half = bytes.slice(..bytes.len() / 2);
            Response::from_parts(head, Body::from_stream(stream::iter([Ok(half), Err(std::io::Error::other("broken off"))])))
        }
        _ => response,
    }
}

/// What is written as `%2F` is a slash, and so on.
fn unescape(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at(2);
        plain.push(u8::from_str_radix(code, 16).unwrap().into());
        plain.push_str(rest);
    }
    plain
}

/// Ends the connection's task, without a word.
fn close() -> ! {
    std::panic::resume_unwind(Box::new("closed"))
}

fn refuse(status: StatusCode, code: &str) -> Response {
    // As real stores do, the answer repeats what should not be repeated.
    let text = format!("<Error><Code>{code}</Code><Message>no</Message><AWSAccessKeyId>testkey</AWSAccessKeyId></Error>");
    (status, text).into_response()
}

fn perform(
    content: &mut Content,
    method: &Method,
    key: &str,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    body: Bytes,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if !authorization.contains("Credential=testkey/") && !content.anonymous {
        return refuse(StatusCode::FORBIDDEN, "InvalidAccessKeyId");
    }
    content.log.push((method.clone(), key.to_owned()));
    let upload = query.get("uploadId");
    match *method {
        Method::GET if query.contains_key("list-type") => list(content, query),
        Method::GET | Method::HEAD => get(content, key, headers),
        Method::PUT => match (upload, query.get("partNumber")) {
            (Some(upload), Some(number)) => {
                let Some(parts) = content.uploads.get_mut(upload) else { return refuse(StatusCode::NOT_FOUND, "NoSuchUpload") };
                parts.insert(number.parse().unwrap(), body);
                tagged(StatusCode::OK)
            }
            _ => {
                let conditional = headers.contains_key(header::IF_NONE_MATCH) || headers.contains_key("x-goog-if-generation-match");
                if conditional && !content.ignores_conditions && content.objects.contains_key(key) {
                    return refuse(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                content.objects.insert(key.to_owned(), body);
                tagged(StatusCode::OK)
            }
        },
        Method::POST if query.contains_key("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let mut done = String::new();
            for deleted in text.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()) {
                content.objects.remove(deleted);
                done += &format!("<Deleted><Key>{deleted}</Key></Deleted>");
            }
            format!("<DeleteResult>{done}</DeleteResult>").into_response()
        }
        Method::POST if query.contains_key("uploads") => {
            let id = format!("upload{}", content.log.len());
            content.uploads.insert(id.clone(), BTreeMap::new());
            format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>").into_response()
        }
        Method::POST => match upload.and_then(|upload| content.uploads.remove(upload)) {
            Some(parts) => {
                content.objects.insert(key.to_owned(), parts.into_values().flatten().collect());
                "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>".into_response()
            }
            None => refuse(StatusCode::NOT_FOUND, "NoSuchUpload"),
        },
        Method::DELETE => {
            match upload {
                Some(upload) => drop(content.uploads.remove(upload)),
                None => drop(content.objects.remove(key)),
            }
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

fn tagged(status: StatusCode) -> Response {
    (status, [(header::ETAG, "\"e\""), (header::LAST_MODIFIED, "Mon, 01 Jan 2024 00:00:00 GMT")]).into_response()
}

fn get(content: &Content, key: &str, headers: &HeaderMap) -> Response {
    let Some(bytes) = content.objects.get(key).cloned() else { return refuse(StatusCode::NOT_FOUND, "NoSuchKey") };
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let mut response = tagged(StatusCode::OK);
    let mut slice = bytes.clone();
    if let Some((first, last)) = range {
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap_or(usize::MAX).min(bytes.len() - 1));
        slice = bytes.slice(first..=last);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        response.headers_mut().insert(header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", bytes.len()).parse().unwrap());
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, slice.len().into());
    *response.body_mut() = Body::from(slice);
    response
}

/// Pages are small, so that every test turns them.
fn list(content: &Content, query: &HashMap<String, String>) -> Response {
    const PAGE: usize = 3;
    let (prefix, after) = (query.get("prefix").cloned().unwrap_or_default(), query.get("continuation-token").cloned().unwrap_or_default());
    let mut matching = content.objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key > after);
    let page = matching.by_ref().take(PAGE).collect::<Vec<_>>();
    let mut text = "<ListBucketResult>".to_owned();
    for (key, bytes) in &page {
        text += &format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2024-01-01T00:00:00Z</LastModified><ETag>e</ETag></Contents>",
            bytes.len()
        );
    }
    if let (Some(_), Some((last, _))) = (matching.next(), page.last()) {
        text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
    }
    (text + "</ListBucketResult>").into_response()
}
