//! Opens connections to the API: DNS, the environment's proxy, TCP, TLS and the choice of the HTTP version.
//!
//! Promises that connecting ends within `api.connect_timeout`, that HTTP/2 is used wherever the server offers it (it numbers each
//! request, so an answer can't be mistaken for another's), and that a proxy never sees a plain request. Must not know requests.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::InvalidUri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::error::ClientError;
use super::failure::Failure;
use crate::config::Api;
use crate::http_client::resolve::Resolver;
use crate::http_client::tls;
use crate::pem;

/// When the other end of a connection has silently vanished, the system notices after four times this long.
const TCP_PROBES: Duration = Duration::from_secs(15);

/// A connection, below HTTP. Boxed, because it has over a kilobyte and moves with each request.
pub(super) type Stream = Box<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// Its socket.
pub(super) fn socket(stream: &Stream) -> &TcpStream {
    match &**stream {
        MaybeHttpsStream::Http(tcp) => tcp.inner(),
        MaybeHttpsStream::Https(tls) => tls.inner().get_ref().0.inner().inner(),
    }
}

/// Opens connections to one host.
pub(super) struct Connector {
    way: Way,
    host: Uri,
    timeout: Duration,
}

enum Way {
    Direct(HttpsConnector<HttpConnector<Resolver>>),
    Proxied(HttpsConnector<Tunnel<HttpConnector<Resolver>>>),
}

impl Connector {
    /// # Errors
    /// The certificates or the proxy can't be used.
    pub fn new(api: &Api, origin: &str) -> Result<Self, ClientError> {
        let setup = |error: &dyn Error| ClientError::Setup(error.to_string());
        let host: Uri = origin.parse().map_err(|error: InvalidUri| setup(&error))?;
        let unusable = |path, reason| ClientError::CaFile { path, reason };
        let extra = match api.ca_file.clone() {
            Some(path) => pem::certificates(&path).map_err(|reason| unusable(path, reason))?,
            None => Vec::new(),
        };
        // A proxy would see the key of a plain request, and the key goes to one host only. Without TLS no CA certificates are
        // needed, so a system without them works.
        let is_plain = api.base_url.scheme() == "http";
        let tls = if is_plain { tls::trusting_nobody() } else { tls::trusting(extra, None) };
        let tls = Arc::new(tls.map_err(|error| setup(&error))?);
        let mut tcp = HttpConnector::new_with_resolver(Resolver::default());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_PROBES));
        tcp.set_keepalive_interval(Some(TCP_PROBES));
        tcp.set_keepalive_retries(Some(3));
        tcp.set_connect_timeout(Some(api.connect_timeout));
        let proxy = (!is_plain).then(|| Matcher::from_system().intercept(&host)).flatten();
        let way = match proxy {
            None => Way::Direct((tcp, tls).into()),
            Some(proxy) if proxy.uri().scheme_str() == Some("http") => {
                let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                let tunnel = match proxy.basic_auth() {
                    Some(auth) => tunnel.with_auth(auth.clone()),
                    None => tunnel,
                };
                Way::Proxied((tunnel, tls).into())
            }
            Some(proxy) => {
                let scheme = proxy.uri().scheme_str().unwrap_or_default();
                return Err(ClientError::Setup(format!(
                    "the environment names a proxy of the kind {scheme}:// (HTTPS_PROXY or ALL_PROXY), and only \
                     http:// proxies can be used; correct it, or name the API's host in NO_PROXY"
                )));
            }
        };
        Ok(Self { way, host, timeout: api.connect_timeout })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Stream, Failure> {
        let connecting = match &self.way {
            Way::Direct(connector) => connector.clone().call(self.host.clone()),
            Way::Proxied(connector) => connector.clone().call(self.host.clone()),
        };
        match timeout(self.timeout, connecting).await {
            Ok(connected) => connected.map(Box::new).map_err(Failure::Connect),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }
}
