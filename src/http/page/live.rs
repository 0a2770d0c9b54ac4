//! Keeps the numbers of the status page current: one task looks at the daemon, and renders what has changed once for all pages
//! that are open.
//!
//! Promises that rendering costs the same for any number of open pages, and that a page which is not read holds at most one part
//! of the page in memory. Must not know sessions or requests.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::view;
use crate::http::history::{History, Span};
use crate::operations::{self, Failure};
use crate::protocol::schedule::Schedule;
use crate::protocol::stats::{Sink, Stats};
use crate::services::Services;

/// How often an open page gets new numbers.
const EVERY: Duration = Duration::from_secs(1);

/// How often the charts change: with each sample of the hour.
const CHARTS_EVERY: Duration = Duration::from_secs(10);

/// How long the parts may take to report their numbers.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The interval of keep-alive comments on a stream without news.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How soon a browser connects again, in milliseconds.
const RETRY: u32 = 1000;

/// The last rendered parts of the page, as events.
#[derive(Debug, Clone, Default)]
struct Parts {
    numbers: Bytes,
    /// By [`Span`].
    charts: [Bytes; 2],
}

/// What open pages are sent.
pub struct Live {
    services: Services,
    began: Instant,
    history: History,
    parts: watch::Sender<Parts>,
}

/// The current numbers.
pub struct Now {
    pub stats: Stats,
    pub sinks: Vec<(String, Sink)>,
}

impl Live {
    pub fn new(services: Services, history: History) -> Self {
        let parts = watch::channel(Parts::default()).0;
        Self { services, began: Instant::now(), history, parts }
    }

    /// Asks all parts of the daemon for their numbers.
    ///
    /// # Errors
    /// A part refuses, or does not answer within [`TIMEOUT`].
    pub async fn now(&self) -> Result<Now, String> {
        let stats = match timeout(TIMEOUT, operations::current(&self.services)).await {
            Ok(Ok(stats)) => stats,
            Ok(Err(Failure::Refused(refusal))) => return Err(refusal.message.into_owned()),
            Ok(Err(Failure::ClientGone)) => return Err("the daemon is stopping".to_owned()),
            Err(_) => {
                return Err(format!("the daemon's parts did not answer within {} s", TIMEOUT.as_secs()));
            }
        };
        let sinks = stats.sinks.iter().filter_map(|(name, sink)| Some((name.clone(), sink.read().ok()?)));
        Ok(Now { sinks: sinks.collect(), stats })
    }

    /// The part of the page with the numbers.
    pub fn numbers(&self, now: &Now) -> String {
        view::numbers(&now.stats, &now.sinks, self.services.clock.wall()).into_string()
    }

    /// The part of the page with the charts.
    pub async fn charts(&self, span: Span, now: &Now) -> String {
        let schedule = self.schedule().await;
        view::charts(&self.history.series(span), span, &now.stats, schedule.as_ref()).into_string()
    }

    async fn schedule(&self) -> Option<Schedule> {
        let answer = timeout(TIMEOUT, operations::schedule(&self.services)).await.ok()?.ok()?;
        answer.schedule.read().ok()
    }

    /// Renders the parts while a page is open.
    pub async fn keep_current(&self, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut charts_of = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.parts.receiver_count() == 0 {
                continue;
            }
            let Ok(now) = self.now().await else { continue };
            let mut parts = self.parts.borrow().clone();
            parts.numbers = event("numbers", &self.numbers(&now));
            let step = self.began.elapsed().as_millis() / CHARTS_EVERY.as_millis();
            if charts_of != Some(step) {
                charts_of = Some(step);
                for span in [Span::Hour, Span::Day] {
                    parts.charts[span as usize] = event("charts", &self.charts(span, &now).await);
                }
            }
            self.parts.send_replace(parts);
        }
    }

    /// A stream of events for one open page, until `stop` or the client ends it, or until the visitor may no longer see it.
    pub fn stream(
        &self,
        span: Span,
        stop: CancellationToken,
        may_see: impl Fn() -> bool + Send + 'static,
    ) -> Body {
        let parts = self.parts.subscribe();
        let page = OpenPage { parts, span, sent: Parts::default(), stop, may_see };
        let begin = Bytes::from(format!("retry: {RETRY}\n\n"));
        Body::from_stream(unfold((page, Some(begin)), |(mut page, begin)| async move {
            let bytes = match begin {
                Some(begin) => begin,
                None => page.next().await?,
            };
            Some((Ok::<_, Infallible>(bytes), (page, None)))
        }))
    }
}

/// What one page was sent.
struct OpenPage<M> {
    parts: watch::Receiver<Parts>,
    span: Span,
    sent: Parts,
    stop: CancellationToken,
    may_see: M,
}

impl<M: Fn() -> bool> OpenPage<M> {
    /// The next event; a comment if there was none for long; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !(self.may_see)() {
                return None;
            }
            let span = self.span as usize;
            {
                let parts = self.parts.borrow_and_update();
                for (part, sent) in [
                    (&parts.numbers, &mut self.sent.numbers),
                    (&parts.charts[span], &mut self.sent.charts[span]),
                ] {
                    if part != sent {
                        sent.clone_from(part);
                        return Some(part.clone());
                    }
                }
            }
            tokio::select! {
                changed = self.parts.changed() => changed.ok()?,
                () = sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b":\n\n")),
                () = self.stop.cancelled() => return None,
            }
        }
    }
}

/// An event whose data is a JSON text, because HTML may have several lines.
fn event(name: &str, html: &str) -> Bytes {
    let data = serde_json::Value::from(html);
    format!("event: {name}\ndata: {data}\n\n").into()
}
