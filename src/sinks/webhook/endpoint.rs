//! The endpoint: sends one signed POST and interprets its answer.
//!
//! Promises that every try ends within the configured time-out with exactly one [`Answer`], that it reads at most a few KiB of an
//! answer, and that secrets reach only the configured host: no error text contains the URL (its path or query may be a token),
//! the signing secrets, a configured header's value or the request body, and redirects are not followed. Must not know the rules
//! of delivery or the store.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, Request, Response, redirect, retry};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::advice;
use super::redact::Redactor;
use super::request::{BadSecret, Message, Signer, WEBHOOK_SIGNATURE};
use super::response::{Answer, Failure};
use super::state::Rules;
use super::test_delivery;
use crate::config::{Headers, Webhook};
use crate::http_client::failure::{detail, failure_text, not_processed};
use crate::http_client::resolve::Resolver;
use crate::http_client::{Connection, HTTP2_PING_INTERVAL, HTTP2_PING_TIMEOUT, USER_AGENT, named, tls};
use crate::store::Outcome;

/// How long a kept connection may be idle. Less than the 5 s of Node and uvicorn, so that pinwatch closes it first: a POST on a
/// connection that the server has just closed is a failed try.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The most bytes of a body that are read.
const MAX_BODY: usize = 4096;

/// How long to wait for the body of an answer other than 2xx, which only improves an error text.
const TEXT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long the rest of a 2xx may take before its connection is closed. No delivery waits for it.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// For each concurrent delivery, this many other connections may still receive the rest of an answer. A smaller number would
/// close connections that the next deliveries could use.
const RESTS: usize = 4;

/// How many times one try resends a request that the server did not process. A server that closes a connection refuses all
/// requests that it has not begun, and may close the next connection just as soon.
const MAX_FREE_RETRIES: u32 = 5;

/// Why an endpoint can't be used as configured. Contains no secrets.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error(transparent)]
    Secret(#[from] BadSecret),
    #[error("the HTTP client can't be set up: {0}")]
    Client(String),
    #[error("the header {0:?} can't be sent")]
    Header(String),
}

struct Clients {
    kept: Client,
    /// Keeps no connections.
    new: Client,
}

/// The place that outcomes are delivered to.
pub struct Endpoint {
    pub(super) webhook: Webhook,
    clients: RwLock<Clients>,
    signer: Signer,
    headers: HeaderMap,
    redactor: Redactor,
    pub(super) rules: Rules,
}

impl Endpoint {
    /// Creates the configured endpoint. Makes no connection, because the server need not be up yet.
    ///
    /// # Errors
    /// A secret can't sign, a header can't be sent, or the system has no CA certificates.
    pub fn new(webhook: &Webhook) -> Result<Self, SetupError> {
        let Webhook { url, secrets, headers, concurrency, batch, max_age, .. } = webhook;
        Ok(Self {
            clients: RwLock::new(Clients::new(webhook)?),
            signer: Signer::new(secrets)?,
            headers: header_map(headers)?,
            redactor: Redactor::new(url, secrets, headers),
            rules: Rules { concurrency: *concurrency, batch: *batch, max_age: *max_age },
            webhook: webhook.clone(),
        })
    }

    /// The most connections that may receive the rest of an answer at once.
    pub(super) fn max_rests(&self) -> usize {
        self.rules.concurrency.saturating_mul(RESTS)
    }

    /// Uses new connections from now on. Running requests finish on the old ones. Reads the system's certificates, which takes
    /// some milliseconds.
    ///
    /// # Errors
    /// The system no longer has CA certificates; the connections are kept.
    pub(super) fn renew_connections(&self) -> Result<(), SetupError> {
        let renewed = Clients::new(&self.webhook)?;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    /// Tries once to deliver these outcomes; `now` dates the request. Also returns the unread rest of a 2xx, to be
    /// [read](Rest::read).
    pub(super) async fn deliver(
        &self,
        outcomes: &[Outcome],
        connection: Connection,
        now: Timestamp,
    ) -> (Answer, Option<Rest>) {
        let message = match Message::of(outcomes, self.webhook.format, self.rules.batch > 1) {
            Ok(message) => message,
            Err(bad) => return (Answer::Unsendable(bad.to_string()), None),
        };
        match self.exchange(&message, outcomes, connection, now).await {
            Ok(response) => {
                // The status decides: the receiver has the outcomes, whether or not the body arrives.
                let rest = (response.content_length() != Some(0)).then_some(Rest(response));
                (Answer::Delivered, rest)
            }
            Err(answer) => (answer, None),
        }
    }

    /// Sends one outcome that says that it is a test, on a new connection; returns the status of the answer.
    ///
    /// # Errors
    /// Why the receiver did not accept it, as for every outcome.
    pub async fn send_test(&self, now: Timestamp) -> Result<String, String> {
        let outcomes = [test_delivery::outcome(now).map_err(|error| error.to_string())?];
        let message = Message::of(&outcomes, self.webhook.format, self.rules.batch > 1);
        let message = message.map_err(|error| error.to_string())?;
        match self.exchange(&message, &outcomes, Connection::New, now).await {
            Ok(response) => Ok(named(response.status())),
            Err(Answer::Refused(failure) | Answer::Later { failure, .. } | Answer::Unprocessed(failure)) => {
                Err(failure.text)
            }
            Err(Answer::Unsendable(why)) => Err(why),
            Err(Answer::Delivered) => Err("nobody knows why; this is a bug".to_owned()),
        }
    }

    /// Sends one request; returns the head of a 2xx, or any other result as an answer.
    async fn exchange(
        &self,
        message: &Message,
        outcomes: &[Outcome],
        connection: Connection,
        now: Timestamp,
    ) -> Result<Response, Answer> {
        let mut headers = self.headers.clone();
        // None of these names can be configured.
        headers.extend(message.headers(&self.signer, now.as_second()));
        let request = || {
            let mut request = Request::new(Method::POST, self.webhook.url.clone());
            *request.headers_mut() = headers.clone();
            *request.body_mut() = Some(message.body.clone().into());
            request
        };
        let deadline = Instant::now() + self.webhook.timeout;
        let mut response = match timeout_at(deadline, self.send(request, connection)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(unanswered(&error)),
            Err(_) => {
                let timeout = humantime::format_duration(self.webhook.timeout);
                return Err(Answer::none(format!("time-out: no answer within {timeout}")));
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (body, said) = match outcomes {
            [outcome] => {
                let body = beginning(&mut response, deadline.min(Instant::now() + TEXT_TIMEOUT)).await;
                let signature = headers.get(WEBHOOK_SIGNATURE).and_then(|value| value.to_str().ok());
                let said = self.redactor.clean(&body, outcome, signature);
                (body, said)
            }
            // A text about many outcomes would be stored with each of them, and might name the others.
            _ => (Vec::new(), None),
        };
        let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.as_bytes());
        Err(Answer::of(response.status(), retry_after, &body, said.as_deref(), now))
    }

    /// One try, for `fuzz/checks`: delivered, or the error texts for health and for the store.
    #[doc(hidden)]
    pub async fn try_once(&self, outcome: &Outcome) -> Result<(), (String, String)> {
        let outcomes = std::slice::from_ref(outcome);
        match self.deliver(outcomes, Connection::New, Timestamp::UNIX_EPOCH).await.0 {
            Answer::Delivered => Ok(()),
            Answer::Refused(failure) | Answer::Later { failure, .. } | Answer::Unprocessed(failure) => {
                Err((failure.summary, failure.text))
            }
            Answer::Unsendable(why) => Err((why.clone(), why)),
        }
    }

    /// Sends the request. Resends it at once if the server says that it did not process it: while closing a connection (HTTP/2's
    /// GOAWAY), or with too many requests open (REFUSED_STREAM).
    async fn send(
        &self,
        request: impl Fn() -> Request,
        connection: Connection,
    ) -> Result<Response, reqwest::Error> {
        let client = {
            let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
            match connection {
                Connection::Kept => clients.kept.clone(),
                Connection::New => clients.new.clone(),
            }
        };
        for _ in 0..MAX_FREE_RETRIES {
            match client.execute(request()).await {
                Err(error) if not_processed(&error) && !error.is_connect() => {}
                ended => return ended,
            }
        }
        client.execute(request()).await
    }
}

/// The body of a 2xx.
pub(super) struct Rest(Response);

impl Rest {
    /// Reads a little of it, for at most a second: the next request can use a connection whose body has ended.
    pub async fn read(mut self) {
        beginning(&mut self.0, Instant::now() + REST_TIMEOUT).await;
    }
}

impl Clients {
    fn new(webhook: &Webhook) -> Result<Self, SetupError> {
        Self::with(webhook, |builder| builder)
    }

    fn with(webhook: &Webhook, more: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Self, SetupError> {
        let is_plain = webhook.url.scheme() == "http";
        let Webhook { ca_file, client_cert, .. } = webhook;
        let tls = match is_plain {
            true => tls::trusting_nobody(),
            false => tls::trusting(ca_file.clone(), client_cert.as_deref()),
        };
        let tls = tls.map_err(|error| SetupError::Client(error.to_string()))?;
        let build = |kept| {
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(USER_AGENT)
                .redirect(redirect::Policy::none())
                .referer(false)
                // `send` knows better which requests are safe to resend.
                .retry(retry::never().max_retries_per_request(0))
                .dns_resolver(Resolver::default())
                // Half of the whole time-out, so that an endpoint that can't be reached is distinguished from one that is slow.
                .connect_timeout(webhook.timeout / 2)
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .pool_max_idle_per_host(kept)
                .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
                .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT);
            // A proxy would see a plain request.
            let builder = if is_plain { builder.no_proxy() } else { builder };
            more(builder).build().map_err(|error| SetupError::Client(detail(&error)))
        };
        Ok(Self { kept: build(webhook.concurrency.saturating_mul(RESTS))?, new: build(0)? })
    }
}

/// The configured headers, marked as sensitive: they appear in no `Debug` output, and not in HTTP/2's compression table.
fn header_map(headers: &Headers) -> Result<HeaderMap, SetupError> {
    let header = |(name, value): (&str, &SecretString)| {
        let bad = || SetupError::Header(name.to_owned());
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| bad())?;
        value.set_sensitive(true);
        Ok((HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value))
    };
    headers.iter().map(header).collect()
}

/// Classifies a request that got no answer.
fn unanswered(error: &reqwest::Error) -> Answer {
    let mut text = failure_text(error, error.is_connect());
    if let Some(advice) = advice::on_failure(error) {
        text = format!("{text} ({advice})");
    }
    match not_processed(error) || advice::is_about_client(error) {
        true => Answer::Unprocessed(Failure::from(text)),
        false => Answer::none(text),
    }
}

/// Reads the body up to the limit and the deadline. A connection whose body was read whole can be reused.
async fn beginning(response: &mut Response, deadline: Instant) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < MAX_BODY
        && let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await
    {
        let room = MAX_BODY.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    body
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{Config, SinkKind};

    /// Long enough that no healthy exchange reaches it, even on the slowest machine.
    const AMPLE: Duration = Duration::from_secs(60);

    fn webhook(url: &str, timeout: Duration) -> Webhook {
        let sink = format!("sink=[{{type=\"webhook\", url={url:?}, concurrency=1}}]");
        let mut config = Config::of_sets(&["api.key=key", &sink]).unwrap();
        match config.sinks.remove(0).kind {
            SinkKind::Webhook(webhook) => Webhook { timeout, ..webhook },
            other => panic!("{other:?}"),
        }
    }

    async fn deliver(endpoint: &Endpoint) -> Answer {
        let record =
            r#"{"id":"0193e6a0-0000-7000-8000-000000000001","pinId":"A","outcome":"final","finishedAt":""}"#;
        let outcome = Outcome { seq: 1, pin: "A".parse().unwrap(), record: record.into() };
        endpoint.deliver(&[outcome], Connection::Kept, Timestamp::UNIX_EPOCH).await.0
    }

    /// What an HTTP/2 server does with a request.
    #[derive(Clone, Copy)]
    enum Does {
        Answers,
        /// GOAWAY with the last stream that it processes and an error code (RFC 9113, section 6.8).
        GoesAway {
            last: u8,
            code: u8,
        },
        /// RST_STREAM with REFUSED_STREAM.
        Refuses,
    }

    const NO_ERROR: u8 = 0;
    const REFUSED_STREAM: u8 = 7;
    const ENHANCE_YOUR_CALM: u8 = 11;

    /// An HTTP/2 server without TLS. Handles each request as the script says, across all connections, and repeats the script's
    /// last step. Reports each request.
    async fn http2_server(script: &'static [Does]) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (requests, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut script = script.iter().copied();
            let mut last = Does::Answers;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A connection that ends makes room for the next.
                let _ = serve_http2(stream, &requests, || {
                    last = script.next().unwrap_or(last);
                    last
                })
                .await;
            }
        });
        (addr, seen)
    }

    async fn serve_http2(
        mut stream: TcpStream,
        requests: &mpsc::UnboundedSender<()>,
        mut next: impl FnMut() -> Does,
    ) -> std::io::Result<()> {
        const HEADERS: u8 = 1;
        const RST_STREAM: u8 = 3;
        const SETTINGS: u8 = 4;
        const PING: u8 = 6;
        const GOAWAY: u8 = 7;
        const ACK: u8 = 1;
        const END_OF_BOTH: u8 = 5;
        // HPACK's static table has `:status: 200` at 8.
        const STATUS_200: u8 = 0x88;

        fn frame(kind: u8, flags: u8, id: &[u8], payload: &[u8]) -> Vec<u8> {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags], id, payload].concat()
        }
        let connection = [0; 4];
        stream.read_exact(&mut [0; 24]).await?;
        stream.write_all(&frame(SETTINGS, 0, &connection, &[])).await?;
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await?;
            let mut payload = vec![0; usize::from(head[1]) * 256 + usize::from(head[2])];
            stream.read_exact(&mut payload).await?;
            let (kind, flags, id) = (head[3], head[4], &head[5..]);
            let answer = match kind {
                SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, &connection, &[]),
                PING if flags & ACK == 0 => frame(PING, ACK, &connection, &payload),
                HEADERS => {
                    requests.send(()).unwrap();
                    match next() {
                        Does::Answers => frame(HEADERS, END_OF_BOTH, id, &[STATUS_200]),
                        Does::Refuses => frame(RST_STREAM, 0, id, &[0, 0, 0, REFUSED_STREAM]),
                        Does::GoesAway { last, code } => {
                            let words = b"POST /hook?token=hunter2";
                            let payload = [&[0, 0, 0, last, 0, 0, 0, code], &words[..]].concat();
                            stream.write_all(&frame(GOAWAY, 0, &connection, &payload)).await?;
                            return stream.shutdown().await;
                        }
                    }
                }
                _ => continue,
            };
            stream.write_all(&answer).await?;
        }
    }

    /// Returns the answer of a delivery to such a server, and the number of requests that it took.
    async fn deliver_by_http2(script: &'static [Does]) -> (Answer, usize) {
        let (addr, mut seen) = http2_server(script).await;
        let webhook = webhook(&format!("http://{addr}/hook?token=hunter2"), AMPLE);
        let endpoint = Endpoint::new(&webhook).unwrap();
        *endpoint.clients.write().unwrap() =
            Clients::with(&webhook, ClientBuilder::http2_prior_knowledge).unwrap();
        let answer = deliver(&endpoint).await;
        let mut requests = 0;
        while seen.try_recv().is_ok() {
            requests += 1;
        }
        (answer, requests)
    }

    #[tokio::test]
    async fn a_request_that_the_server_did_not_process_is_repeated_at_once() {
        use Does::{Answers, GoesAway, Refuses};
        for (script, requests) in [
            (&[Answers][..], 1),
            (&[GoesAway { last: 0, code: NO_ERROR }, Answers], 2),
            (&[GoesAway { last: 0, code: ENHANCE_YOUR_CALM }, Answers], 2),
            (&[Refuses, Answers], 2),
            (
                &[
                    Refuses,
                    GoesAway { last: 1, code: NO_ERROR },
                    GoesAway { last: 0, code: NO_ERROR },
                    Refuses,
                    Answers,
                ],
                5,
            ),
        ] {
            assert_eq!(deliver_by_http2(script).await, (Answer::Delivered, requests));
        }
    }

    #[tokio::test]
    async fn a_server_that_never_processes_a_request_gets_it_only_a_few_times() {
        for script in [&[Does::Refuses][..], &[Does::GoesAway { last: 0, code: ENHANCE_YOUR_CALM }]] {
            let (answer, requests) = deliver_by_http2(script).await;
            let Answer::Unprocessed(failure) = answer else { panic!("{answer:?}") };
            assert!(failure.text.starts_with("connection lost: HTTP/2: "), "{}", failure.text);
            assert!(!failure.text.contains("hunter2"), "{}", failure.text);
            assert_eq!(requests, 6);
        }
    }

    #[tokio::test]
    async fn a_request_that_the_server_may_have_processed_is_not_repeated_at_once() {
        let (answer, requests) = deliver_by_http2(&[Does::GoesAway { last: 1, code: NO_ERROR }]).await;
        assert!(matches!(answer, Answer::Later { .. }), "{answer:?}");
        assert_eq!(requests, 1);
    }

    #[tokio::test]
    async fn an_endpoint_that_can_not_be_reached_has_processed_nothing() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_addr = silent.local_addr().unwrap();
        let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain_addr = plain.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = plain.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            }
        });
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let short = Duration::from_millis(200);
        for (url, timeout, expected) in [
            (format!("http://{nobody}/"), AMPLE, "connect: connection refused"),
            (format!("https://{plain_addr}/"), AMPLE, "TLS: received corrupt message"),
            (format!("https://{silent_addr}/"), short, "time-out while connecting"),
        ] {
            let answer = deliver(&Endpoint::new(&webhook(&url, timeout)).unwrap()).await;
            let Answer::Unprocessed(failure) = answer else { panic!("{answer:?}") };
            assert!(failure.text.starts_with(expected), "{}", failure.text);
        }
    }
}
