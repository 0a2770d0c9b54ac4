//! Opens connections to the API: DNS, the environment's proxy, TCP, TLS and the choice of the HTTP version.
//!
//! Promises that connecting ends within `api.connect_timeout`, that HTTP/2 is used wherever the server offers it (it numbers each
//! request, so an answer can't be mistaken for another's), and that a proxy never sees a plain request. Must not know requests.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::error::ClientError;
use super::failure::Failure;
use super::resolve::Resolver;
use crate::config::Api;

/// When the other end of a connection has silently vanished, the system notices after four times this long.
const TCP_PROBES: Duration = Duration::from_secs(15);

/// The most bytes of `api.ca_file` that are read; the system's whole bundle has a quarter of a megabyte.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// A connection, below HTTP.
pub(super) type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// Its socket.
pub(super) fn socket(stream: &Stream) -> &TcpStream {
    match stream {
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
    pub fn new(api: &Api, host: &Uri) -> Result<Self, ClientError> {
        let extra = certificates(api.ca_file.as_deref())?;
        // A proxy would see the key of a plain request, and the key goes to one host only. Without TLS no CA certificates are
        // needed, so a system without them works.
        let is_plain = api.base_url.scheme() == "http";
        let tls = Arc::new(if is_plain { without_certificates()? } else { tls(extra)? });
        let mut tcp = HttpConnector::new_with_resolver(Resolver::default());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_PROBES));
        tcp.set_keepalive_interval(Some(TCP_PROBES));
        tcp.set_keepalive_retries(Some(3));
        tcp.set_connect_timeout(Some(api.connect_timeout));
        let proxy = (!is_plain).then(|| Matcher::from_system().intercept(host)).flatten();
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
        Ok(Self { way, host: host.clone(), timeout: api.connect_timeout })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Stream, Failure> {
        let connecting = match &self.way {
            Way::Direct(connector) => connector.clone().call(self.host.clone()),
            Way::Proxied(connector) => connector.clone().call(self.host.clone()),
        };
        match timeout(self.timeout, connecting).await {
            Ok(connected) => connected.map_err(Failure::Connect),
            Err(_) => Err(Failure::ConnectTimeout),
        }
    }
}

/// TLS that trusts the system's certificates and these.
fn tls(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let setup = |error: rustls::Error| ClientError::Setup(error.to_string());
    let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(setup)?;
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(setup)?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// TLS that trusts no certificate, for plain connections.
fn without_certificates() -> Result<ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Setup(error.to_string()))?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The certificates of `api.ca_file`.
fn certificates(path: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let unusable = |reason: String| ClientError::CaFile { path: path.to_owned(), reason };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| unusable(error.to_string()))?;
    file.take(MAX_CA_FILE).read_to_end(&mut pem).map_err(|error| unusable(error.to_string()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it has no certificate in PEM (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certificates)
}
