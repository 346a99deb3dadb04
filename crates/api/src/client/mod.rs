//! Asking an API over HTTP: TCP, TLS 1.3 with certificates on both sides, or a Unix socket. It knows no resource;
//! what an agent and a controller have in common is in `common`, and their clients are made of that.
//!
//! It never repeats a request by itself: whoever asks knows whether that is right, and has idempotency keys for it.

mod common;
mod endpoint;
mod socket;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use common::CommonClient;
pub(crate) use common::NONE;
pub use endpoint::Endpoint;

use crate::error::ApiError;
use crate::event::EventId;
use crate::events;
use crate::generation::{self, Generation};
use crate::idempotency;
use crate::problem::Problem;
use crate::serve::{TlsFiles, tls};

/// Time to connect.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Time for an answer. Nothing that is asked takes long, because long work is an operation.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Asks one API.
#[derive(Clone, Debug)]
pub struct HttpClient {
    http: reqwest::Client,
    endpoint: Arc<Endpoint>,
    tls: Arc<ClientConfig>,
    token: Option<HeaderValue>,
}

/// What is sent with a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// The generation under which it is asked for.
    pub generation: Generation,
    /// The key by which it is recognised when it is sent again.
    pub key: Option<String>,
}

impl HttpClient {
    /// A client of the API at `endpoint`. Connects when something is asked.
    pub fn new(endpoint: Endpoint, files: Option<&TlsFiles>, token: Option<&str>) -> Result<Self, ApiError> {
        let config = match (files, endpoint.is_tls()) {
            (Some(files), true) => tls::client(files)?,
            (None, true) => return Err(ApiError::NoTlsFiles(endpoint.to_string())),
            // reqwest wants a configuration also where it will never be used.
            (_, false) => tls::client_of_nobody()?,
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config.clone())
            .connect_timeout(CONNECT_MAX)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Endpoint::Unix { path, .. } = &endpoint {
            builder = builder.unix_socket(path.as_path());
        }
        let http = builder.build().map_err(|error| ApiError::Tls(chain(&error)))?;
        let token = token.map(|token| bearer(token.trim_end())).transpose()?;
        Ok(Self { http, endpoint: Arc::new(endpoint), tls: Arc::new(config), token })
    }

    /// The same client, with its connections and certificates, for the API at another endpoint; none if one of the two is a Unix
    /// socket, which a client is bound to.
    pub fn at(&self, endpoint: Endpoint) -> Option<Self> {
        let is_tcp = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Tcp { .. });
        let same = is_tcp(&self.endpoint) && is_tcp(&endpoint) && self.endpoint.is_tls() == endpoint.is_tls();
        same.then(|| Self { endpoint: Arc::new(endpoint), ..self.clone() })
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ApiError> {
        self.get_within(path, query, ANSWER_MAX).await
    }

    /// Reads something that may take its time to come.
    pub async fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        within: Duration,
    ) -> Result<T, ApiError> {
        let request = self.request(Method::GET, path).query(query).timeout(within);
        self.json(self.send(request).await?).await
    }

    /// Reads bytes as they are.
    pub async fn get_bytes(&self, path: &str, query: &impl Serialize) -> Result<Vec<u8>, ApiError> {
        let request = self.request(Method::GET, path).query(query).timeout(ANSWER_MAX);
        let body = self.send(request).await?.bytes().await;
        body.map(Vec::from).map_err(|error| self.garbled(&error))
    }

    /// Changes something.
    pub async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        options: &ChangeOptions,
        body: Option<&impl Serialize>,
    ) -> Result<T, ApiError> {
        let mut request = self.request(method, path).timeout(ANSWER_MAX);
        request = request.header(generation::HEADER, options.generation.0);
        if let Some(key) = &options.key {
            request = request.header(idempotency::HEADER, key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        self.json(self.send(request).await?).await
    }

    /// Follows an event stream until it ends; it ends with an error when the connection breaks.
    pub async fn follow<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        query: &impl Serialize,
        after: Option<EventId>,
    ) -> Result<BoxStream<'static, Result<T, ApiError>>, ApiError> {
        let mut request = self.request(Method::GET, path).query(query);
        if let Some(after) = after {
            request = request.header(events::HEADER, after);
        }
        let response = self.send(request).await?;
        Ok(sse::values(response.bytes_stream(), self.endpoint.to_string()))
    }

    /// Opens a WebSocket as a stream of bytes.
    pub async fn socket(&self, path: &str) -> Result<tokio::io::DuplexStream, ApiError> {
        socket::open(&self.endpoint, &self.tls, path, self.token.as_ref()).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert(reqwest::header::AUTHORIZATION, token.clone());
        }
        self.http.request(method, self.endpoint.url(path)).headers(headers)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ApiError> {
        let endpoint = || self.endpoint.to_string();
        let sent = request.send().await;
        let response =
            sent.map_err(|error| ApiError::Unreachable { endpoint: endpoint(), reason: chain(&error) })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        match response.json::<Problem>().await {
            Ok(problem) => Err(ApiError::Problem(problem)),
            Err(_) => Err(ApiError::Garbled { endpoint: endpoint(), reason: format!("status {status}") }),
        }
    }

    async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, ApiError> {
        let body = response.bytes().await.map_err(|error| self.garbled(&error))?;
        serde_json::from_slice(&body).map_err(|error| self.garbled(&error))
    }

    fn garbled(&self, error: &(dyn std::error::Error + 'static)) -> ApiError {
        ApiError::Garbled { endpoint: self.endpoint.to_string(), reason: chain(error) }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, ApiError> {
    let mut value =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ApiError::TokenCharacters)?;
    value.set_sensitive(true);
    Ok(value)
}

/// All that an error has to say, from the outside to the inside, each thing once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    // reqwest repeats the URL, which whoever reads this knows.
    let mut said: Vec<String> = causes.map(ToString::to_string).collect();
    if said.len() > 1 && said[0].contains("for url") {
        said.remove(0);
    }
    said.dedup();
    said.join(": ")
}
