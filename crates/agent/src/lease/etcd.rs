//! The lease key and the operator's orders in etcd, through its JSON gateway (etcd 3.4 and newer, "gRPC gateway").
//!
//! Uses transactions that compare `mod_revision`, linearizable reads and watches; no etcd lease. The two keys are read
//! and watched as one range, so that orders cost no question of their own.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use isles_model::{
    LeaseKey, LeaseOutcome, Orders, Revision,
    config::{EtcdConfig, TlsFiles},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde::Deserialize;
use serde_json::{Value, json};

/// The largest answer read from the store, in bytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// How long a connect may take before the next member is tried.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1_000);
/// How long a watch may be silent before it is opened again: the holder renews several times in it.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(10);

/// What the lease store could not do.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// The configuration has no endpoint.
    #[error("no etcd endpoint is configured")]
    NoEndpoint,
    /// An endpoint is not a URL.
    #[error("`{endpoint}` is not an etcd endpoint: write http://HOST:PORT or https://HOST:PORT")]
    Endpoint {
        /// As configured.
        endpoint: String,
        /// Why.
        source: http::uri::InvalidUri,
    },
    /// A TLS file is missing or not PEM.
    #[error("cannot use the TLS file {file}")]
    TlsFile {
        /// Which one.
        file: String,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificates do not make a client.
    #[error("cannot set up TLS for etcd")]
    Tls(#[from] rustls::Error),
    /// The member did not answer.
    #[error("cannot reach etcd at {endpoint}")]
    Reach {
        /// Which member.
        endpoint: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// The answer broke off or was too long.
    #[error("cannot read etcd's answer")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The member refused.
    #[error("etcd answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: http::StatusCode,
        /// etcd's own words.
        message: String,
    },
    /// The answer is not what the gateway's schema says, or the key is not ours.
    #[error("etcd's answer is not understood")]
    NotUnderstood(#[from] serde_json::Error),
    /// The watch ended.
    #[error("the watch ended")]
    WatchEnded,
}

/// The key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The value; `None` when there is no key.
    pub key: Option<LeaseKey>,
    /// Its revision; 0 when there is none.
    pub revision: Revision,
}

/// The operator's orders as the store has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SeenOrders {
    /// The value; the default when there is no key.
    pub orders: Orders,
    /// Its revision; 0 when there is none.
    pub revision: Revision,
    /// How often it was changed; numbers the audit entries.
    pub(super) changes: u64,
}

/// Both keys, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The right to write.
    pub lease: Seen,
    /// The orders; `None`: something is there that is not understood, so what was known before stands.
    pub orders: Option<SeenOrders>,
}

/// A change of one of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// Of the right to write.
    Lease(Seen),
    /// Of the orders.
    Orders(SeenOrders),
}

/// A client of the members named in the configuration, the nearest first.
pub struct Etcd {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoints: Vec<String>,
    /// The member used just now; moves on when it fails.
    current: AtomicUsize,
    pub(super) keys: Keys,
}

/// The names of the keys, in base64 as the gateway wants them.
pub(super) struct Keys {
    /// The right to write.
    writer: String,
    /// The operator's orders.
    pub(super) orders: String,
    /// The first name after both: `audit/` sorts before `orders`, so a range over the two holds nothing else.
    end: String,
    /// What every audit entry's name begins with; not encoded.
    pub(super) audit: String,
}

impl Keys {
    fn of(prefix: &str) -> Self {
        let name = |name: &str| BASE64.encode(format!("{prefix}/{name}"));
        Self {
            writer: name("writer"),
            orders: name("orders"),
            end: name("writer\0"),
            audit: format!("{prefix}/audit/"),
        }
    }
}

impl Etcd {
    /// A client; connects at the first call.
    ///
    /// # Errors
    /// When there is no endpoint or the TLS files cannot be used.
    pub fn new(config: &EtcdConfig) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_DEADLINE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config.tls.as_ref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https);
        let endpoint = |url: &String| match url.parse::<http::Uri>() {
            Ok(_) => Ok(url.trim_end_matches('/').to_owned()),
            Err(source) => Err(EtcdError::Endpoint { endpoint: url.clone(), source }),
        };
        let endpoints = config.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
        Ok(Self { http, endpoints, current: AtomicUsize::new(0), keys: Keys::of(&config.prefix) })
    }

    /// Reads both keys with the agreement of a quorum (a linearizable read).
    ///
    /// # Errors
    /// When no member answers, or the lease key is not understood.
    pub async fn read(&self) -> Result<Stored, EtcdError> {
        let body = json!({ "key": self.keys.orders, "range_end": self.keys.end });
        let answer: Range = self.call("/v3/kv/range", &body).await?;
        let named = |name: &str| answer.kvs.iter().find(|pair| pair.key == name);
        let lease = named(&self.keys.writer).map_or(Ok(Seen::NOTHING), Pair::seen)?;
        let orders = named(&self.keys.orders).map_or(Ok(SeenOrders::default()), Pair::seen_orders);
        Ok(Stored { lease, orders: orders.ok() })
    }

    /// Stores `value` if the key is still at `expected` (0: if it does not exist).
    ///
    /// # Errors
    /// When no answer came; then it may or may not have been stored.
    pub async fn put(&self, expected: Revision, value: &LeaseKey) -> Result<LeaseOutcome, EtcdError> {
        let value = BASE64.encode(serde_json::to_vec(value)?);
        let body = json!({
            "compare": [{ "key": self.keys.writer, "target": "MOD", "result": "EQUAL", "mod_revision": expected.0.to_string() }],
            "success": [{ "request_put": { "key": self.keys.writer, "value": value } }],
        });
        let answer: Txn = self.call("/v3/kv/txn", &body).await?;
        Ok(if answer.succeeded {
            LeaseOutcome::Stored(Revision(answer.header.revision))
        } else {
            LeaseOutcome::Refused
        })
    }

    /// Calls `each` for every change of either key, until the watch breaks. Orders that are not understood are left
    /// out.
    ///
    /// # Errors
    /// Always ends with one: the reason it broke.
    pub async fn watch(&self, mut each: impl FnMut(Changed)) -> Result<(), EtcdError> {
        let body = json!({ "create_request": { "key": self.keys.orders, "range_end": self.keys.end } });
        let mut answer = self.send("/v3/watch", &body).await?.into_body();
        let mut line = Vec::new();
        loop {
            let frame = tokio::time::timeout(WATCH_SILENCE_MAX, answer.frame()).await;
            let Ok(Some(frame)) = frame else { return Err(EtcdError::WatchEnded) };
            let frame = frame.map_err(|error| EtcdError::Answer(error.into()))?;
            line.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if line.len() > ANSWER_BYTES_MAX {
                return Err(EtcdError::WatchEnded);
            }
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let message: Watch = serde_json::from_slice(&line[..end])?;
                line.drain(..=end);
                for event in message.result.events {
                    if event.kv.key == self.keys.writer {
                        each(Changed::Lease(event.seen()?));
                    } else if let Some(orders) = event.seen_orders() {
                        each(Changed::Orders(orders));
                    }
                }
            }
        }
    }

    /// Calls the member in use; moves to the next one when it fails.
    pub(super) async fn call<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, EtcdError> {
        let answer = self.send(path, body).await?;
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(EtcdError::Answer)?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }

    async fn send(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<http::Response<hyper::body::Incoming>, EtcdError> {
        let mut turn = Turn { etcd: self, used: self.current.load(Ordering::Relaxed), answered: false };
        let endpoint = &self.endpoints[turn.used % self.endpoints.len()];
        let reach = |source| EtcdError::Reach { endpoint: endpoint.clone(), source };
        let request = http::Request::post(format!("{endpoint}{path}"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::from(body.to_string()))
            .expect("Etcd::new parsed the endpoint, and paths are constants");
        let answer = self.http.request(request).await.map_err(reach)?;
        let status = answer.status();
        if status.is_success() {
            turn.answered = true;
            return Ok(answer);
        }
        let text =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(EtcdError::Answer)?;
        let message = serde_json::from_slice::<Value>(&text.to_bytes())
            .ok()
            .and_then(|value| value.get("error").and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_default();
        Err(EtcdError::Refused { status, message })
    }
}

/// One call to one member. Dropped without an answer (an error, or a caller that gave up waiting), it moves the
/// client on to the next member.
struct Turn<'a> {
    etcd: &'a Etcd,
    used: usize,
    answered: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let next = (self.used + 1) % self.etcd.endpoints.len();
            let _ = self.etcd.current.compare_exchange(self.used, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn tls(files: Option<&TlsFiles>) -> Result<ClientConfig, EtcdError> {
    let mut roots = RootCertStore::empty();
    let broken = |path: &std::path::Path| {
        let file = path.display().to_string();
        move |source| EtcdError::TlsFile { file, source }
    };
    let chain = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, EtcdError> {
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(broken(path))
    };
    if let Some(files) = files {
        for authority in chain(&files.ca)? {
            roots.add(authority)?;
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match files {
        Some(TlsFiles { cert: Some(cert), key: Some(key), .. }) => {
            let own = PrivateKeyDer::from_pem_file(key).map_err(broken(key))?;
            Ok(builder.with_client_auth_cert(chain(cert)?, own)?)
        }
        Some(_) | None => Ok(builder.with_no_client_auth()),
    }
}

/// Numbers are strings in the gateway's JSON (protobuf's mapping of 64-bit integers).
pub(super) fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
struct Header {
    #[serde(deserialize_with = "number")]
    revision: u64,
}

#[derive(Deserialize)]
pub(super) struct Txn {
    header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
}

#[derive(Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub(super) kvs: Vec<Pair>,
}

#[derive(Deserialize)]
pub(super) struct Pair {
    #[serde(default)]
    key: String,
    #[serde(deserialize_with = "number")]
    mod_revision: u64,
    /// Changes since the key was made; a deleted key has none.
    #[serde(default, deserialize_with = "number")]
    version: u64,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Watch {
    result: WatchResult,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    /// `PUT` is the default and left out.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    kv: Pair,
}

impl Pair {
    pub(super) fn value<T: for<'de> Deserialize<'de>>(&self) -> Result<T, EtcdError> {
        let value = BASE64.decode(&self.value).map_err(<serde_json::Error as serde::de::Error>::custom);
        Ok(value.and_then(|bytes| serde_json::from_slice(&bytes))?)
    }

    fn seen(&self) -> Result<Seen, EtcdError> {
        Ok(Seen { key: Some(self.value()?), revision: Revision(self.mod_revision) })
    }

    fn seen_orders(&self) -> Result<SeenOrders, EtcdError> {
        let revision = Revision(self.mod_revision);
        Ok(SeenOrders { orders: self.value()?, revision, changes: self.version })
    }
}

impl Seen {
    const NOTHING: Self = Self { key: None, revision: Revision(0) };
}

impl Event {
    fn seen(&self) -> Result<Seen, EtcdError> {
        match self.kind.as_deref() {
            Some("DELETE") => Ok(Seen::NOTHING),
            Some(_) | None => self.kv.seen(),
        }
    }

    /// Orders that were deleted are none, as of the deletion.
    fn seen_orders(&self) -> Option<SeenOrders> {
        match self.kind.as_deref() {
            Some("DELETE") => {
                let revision = Revision(self.kv.mod_revision);
                Some(SeenOrders { revision, ..SeenOrders::default() })
            }
            Some(_) | None => self.kv.seen_orders().ok(),
        }
    }
}
