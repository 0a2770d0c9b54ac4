//! Misbehaving endpoints.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pinwatch::config::WebhookFormat;
use tokio::net::TcpListener;

use crate::webhook::bench::{Folder, HEADER, SECRET, webhook};
use crate::webhook::receiver::{
    Action, Answers, AnswersWith, Closes, CutsBody, CutsHead, Echoes, Hangs, HangsInBody, Receiver, Request,
};

/// The first try of each message gets this action; the others are accepted.
fn at_first(does: Action) -> impl Fn(usize, &Request) -> Action + Send + Sync {
    let seen = std::sync::Mutex::new(HashSet::new());
    move |_, request| {
        let first = seen.lock().unwrap().insert(request.id().to_owned());
        if first { does.clone() } else { Answers(200) }
    }
}

#[tokio::test]
async fn a_healthy_endpoint_gets_every_outcome_once_as_its_record() {
    let receiver = Receiver::start(|_, _| Answers(204)).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(300).await;
    bench.until_all_delivered().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 300);
    let stored = bench.store.outcomes_after(0, 1000).await.unwrap();
    let records: HashSet<&str> = stored.iter().map(|outcome| &*outcome.record).collect();
    for request in &requests {
        assert!(records.contains(request.body.as_str()), "the record to the letter");
        assert_eq!(request.id(), request.json()["id"]);
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.headers["x-gateway-key"], HEADER);
        assert_eq!(request.headers["user-agent"], concat!("pinwatch/", env!("CARGO_PKG_VERSION")));
    }
    let ids: HashSet<&str> = requests.iter().map(Request::id).collect();
    assert_eq!(ids.len(), 300);
    bench.stop().await;
}

#[tokio::test]
async fn a_failed_delivery_is_repeated_with_the_same_id_and_body() {
    for does in [
        Answers(500),
        Answers(302),
        Answers(408),
        AnswersWith(429, "retry-after: 1\r\n", ""),
        AnswersWith(503, "retry-after: soon\r\n", ""),
        Closes,
        CutsHead,
        CutsBody(502),
    ] {
        let receiver = Receiver::start(at_first(does.clone())).await;
        let folder = Folder::new();
        let bench = folder.start(&webhook(&receiver.url())).await;
        bench.outcomes(2).await;
        bench.until_all_delivered().await;
        let requests = receiver.requests();
        assert_eq!(requests.len(), 4, "{does:?}");
        for first in &requests[..2] {
            let same: Vec<_> = requests.iter().filter(|request| request.id() == first.id()).collect();
            assert_eq!((same.len(), &same[0].body), (2, &same[1].body), "{does:?}");
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn a_success_whose_body_is_cut_off_is_a_success() {
    let receiver = Receiver::start(|_, _| CutsBody(200)).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(3).await;
    bench.until_all_delivered().await;
    assert_eq!(receiver.requests().len(), 3);
    bench.stop().await;
}

#[tokio::test]
async fn a_delivery_is_repeated_if_the_endpoint_answers_too_late() {
    let receiver = Receiver::start(at_first(Hangs)).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.timeout = Duration::from_millis(200);
    let bench = folder.start(&webhook).await;
    bench.outcomes(1).await;
    let failed = bench.until_failed(1, false).await;
    assert_eq!(failed.error.as_deref(), Some("time-out: no answer within 200ms"));
    // A busy machine may be late as well, so only the end is sure.
    bench.until_all_delivered().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_refused_outcome_becomes_a_dead_letter_with_the_endpoints_answer() {
    for (status, error) in [
        (410, "410 Gone: it is gone [2J"),
        (400, "400 Bad Request: it is gone [2J"),
        (404, "404 Not Found: it is gone [2J"),
    ] {
        let script = move |_, request: &Request| match request.seqs()[0] {
            2 => AnswersWith(status, "", "it is\r\n gone \u{1b}[2J"),
            _ => Answers(200),
        };
        let receiver = Receiver::start(script).await;
        let folder = Folder::new();
        let bench = folder.start(&webhook(&receiver.url())).await;
        bench.outcomes(5).await;
        bench.until_failed(2, false).await;
        // It is refused again after this one is accepted.
        bench.outcomes(1).await;
        let dead = bench.until_failed(2, true).await;
        assert_eq!(dead.error.as_deref(), Some(error));
        assert!(dead.tries >= 2 && dead.first_try_at < dead.last_try_at, "{dead:?}");
        bench.until("the others", async |bench| (bench.stored().await.0 == 6).then_some(())).await;
        let others = receiver.requests().iter().filter(|request| request.seqs() != [2]).count();
        assert_eq!(others, 5);
        bench.stop().await;
    }
}

#[tokio::test]
async fn one_failing_outcome_blocks_no_other() {
    let script = |_, request: &Request| if request.seqs() == [3] { Answers(500) } else { Answers(200) };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.concurrency = 1;
    let bench = folder.start(&webhook).await;
    bench.outcomes(200).await;
    bench.until("the others", async |bench| (bench.stored().await.0 == 200).then_some(())).await;
    let (_, failed) = bench.stored().await;
    assert_eq!(failed.iter().map(|failed| (failed.seq, failed.dead)).collect::<Vec<_>>(), [(3, false)]);
    assert_eq!(failed[0].error.as_deref(), Some("500 Internal Server Error: ok"));
    bench.stop().await;
}

#[tokio::test]
async fn an_outcome_that_fails_for_longer_than_max_age_is_a_dead_letter() {
    let receiver = Receiver::start(|_, _| Answers(500)).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.max_age = Duration::from_secs(5);
    let bench = folder.start(&webhook).await;
    bench.outcomes(1).await;
    let dead = bench.until_failed(1, true).await;
    assert!(dead.tries >= 2, "it had a last try: {dead:?}");
    bench.stop().await;
}

#[tokio::test]
async fn a_sink_starts_without_its_endpoint_and_delivers_everything_when_it_appears() {
    let addr = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let folder = Folder::new();
    let bench = folder.start(&webhook(&format!("http://{addr}/hook?token=hunter2"))).await;
    bench.outcomes(500).await;
    let trouble = bench.until("trouble", async |bench| bench.health.all()["hook"].trouble.clone()).await.1;
    assert_eq!(trouble, "connect: connection refused");
    let (cursor, failed) = bench.stored().await;
    assert!(cursor < 20 && failed.len() < 20, "the cursor stays: {cursor}, {} rows", failed.len());
    let receiver = Receiver::start_at(addr, |_, _| Answers(200)).await;
    bench.until_all_delivered().await;
    let seqs: HashSet<i64> = receiver.requests().iter().flat_map(Request::seqs).collect();
    assert_eq!(seqs, (1..=500).collect());
    bench.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Receiver::start(|_, _| Answers(200)).await;
    let location: &'static str = format!("location: {}\r\n", elsewhere.url()).leak();
    let moved = Arc::new(AtomicBool::new(true));
    let still = moved.clone();
    let script = move |_, _: &Request| match still.load(Ordering::SeqCst) {
        true => AnswersWith(307, location, ""),
        false => Answers(200),
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(1).await;
    bench.until_failed(1, false).await;
    moved.store(false, Ordering::SeqCst);
    bench.until_all_delivered().await;
    assert!(elsewhere.requests().is_empty());
    bench.stop().await;
}

#[tokio::test]
async fn a_refused_outcome_is_found_within_its_batch() {
    let script = |_, request: &Request| match request.seqs().contains(&42) {
        true => Answers(422),
        false => Answers(200),
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    (webhook.batch, webhook.format) = (50, WebhookFormat::CloudEvents);
    let bench = folder.start(&webhook).await;
    bench.outcomes(1000).await;
    bench.until("the others", async |bench| (bench.stored().await.0 == 1000).then_some(())).await;
    bench.outcomes(1).await;
    bench.until_failed(42, true).await;
    bench.until("the last", async |bench| (bench.stored().await.0 == 1001).then_some(())).await;
    let requests = receiver.requests();
    let seqs: HashSet<i64> = requests.iter().flat_map(Request::seqs).collect();
    assert_eq!(seqs, (1..=1001).collect());
    assert!(requests.len() < 300, "{} requests", requests.len());
    for request in &requests {
        assert_eq!(request.headers["content-type"], "application/cloudevents-batch+json");
        assert!(request.json().as_array().is_some_and(|events| events.len() <= 50));
    }
    assert_eq!(bench.stored().await.1.len(), 1);
    bench.stop().await;
}

#[tokio::test]
async fn batches_shrink_until_one_is_accepted() {
    for too_large in [Answers(500), Answers(413), Answers(400), Closes, CutsHead] {
        let does = too_large.clone();
        let script = move |_, request: &Request| match request.body.len() > 100_000 {
            true => does.clone(),
            false => Answers(200),
        };
        let receiver = Receiver::start(script).await;
        let folder = Folder::new();
        let mut webhook = webhook(&receiver.url());
        webhook.batch = 1000;
        let bench = folder.start(&webhook).await;
        bench.outcomes(3000).await;
        bench.until_all_delivered().await;
        let requests = receiver.requests();
        assert!(requests.iter().any(|request| request.body.len() > 100_000));
        assert!(requests.len() < 100, "{} requests with {too_large:?}", requests.len());
        bench.stop().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_everything_makes_no_dead_letter() {
    let moved = Arc::new(AtomicBool::new(true));
    let still = moved.clone();
    let script = move |_, _: &Request| match still.load(Ordering::SeqCst) {
        true => AnswersWith(404, "", "default backend"),
        false => Answers(200),
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(400).await;
    let trouble = bench.until("trouble", async |bench| bench.health.all()["hook"].trouble.clone()).await.1;
    assert_eq!(trouble, "404 Not Found");
    let (cursor, failed) = bench.stored().await;
    assert!(failed.iter().all(|failed| !failed.dead), "{failed:?}");
    assert!(cursor < 400, "the others wait in the store");
    moved.store(false, Ordering::SeqCst);
    bench.until_all_delivered().await;
    bench.stop().await;
}

#[tokio::test]
async fn a_receiver_that_moved_is_reached_when_the_old_address_refuses_everything() {
    // It moves when the fiftieth request comes; who was connected by then stays at the old address.
    let last_old = std::sync::OnceLock::new();
    let script = move |n, request: &Request| {
        if n >= 50 {
            last_old.get_or_init(|| request.connections);
        }
        Answers(if last_old.get().is_some_and(|last| request.connection <= *last) { 404 } else { 200 })
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(500).await;
    bench.until_all_delivered().await;
    assert!(receiver.requests().len() > 500, "some were refused");
    bench.stop().await;
}

#[tokio::test]
async fn no_connection_is_used_when_it_is_older_than_pool_max_age() {
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    (webhook.concurrency, webhook.pool_max_age) = (1, Duration::from_secs(1));
    let bench = folder.start(&webhook).await;
    // Outcomes come often enough that no connection is idle for long.
    bench
        .until("another connection", async |bench| {
            bench.outcomes(1).await;
            bench.until_all_delivered().await;
            receiver.requests().last().filter(|request| request.connection > 4).map(|_| ())
        })
        .await;
    bench.stop().await;
}

#[tokio::test]
async fn a_2xx_answer_with_an_endless_body_does_not_block_other_deliveries() {
    // With one delivery at a time, the next request comes while the last answer's body is still waited for.
    let hanging = Arc::new(std::sync::OnceLock::<Arc<std::sync::atomic::AtomicUsize>>::new());
    let overlapped = Arc::new(AtomicBool::new(false));
    let (known, seen) = (hanging.clone(), overlapped.clone());
    let script = move |_, _: &Request| {
        if known.get().is_some_and(|hanging| hanging.load(Ordering::SeqCst) > 0) {
            seen.store(true, Ordering::SeqCst);
        }
        HangsInBody(200)
    };
    let receiver = Receiver::start(script).await;
    hanging.set(receiver.hanging()).unwrap();
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.concurrency = 1;
    let bench = folder.start(&webhook).await;
    bench.outcomes(30).await;
    bench.until_all_delivered().await;
    assert_eq!(receiver.requests().len(), 30);
    assert!(overlapped.load(Ordering::SeqCst), "each delivery waited for the body of the one before");
    bench.stop().await;
}

#[tokio::test]
async fn data_that_the_endpoint_echoes_is_not_reported() {
    for (status, batch) in [(404, 1), (500, 1), (413, 10)] {
        let receiver = Receiver::start(move |_, _| Echoes(status)).await;
        let folder = Folder::new();
        let mut webhook = webhook(&receiver.url());
        webhook.batch = batch;
        let bench = folder.start(&webhook).await;
        bench.outcomes(30).await;
        let trouble =
            bench.until("trouble", async |bench| bench.health.all()["hook"].trouble.clone()).await.1;
        let errors: Vec<String> =
            bench.stored().await.1.into_iter().filter_map(|failed| failed.error).collect();
        assert!(!errors.is_empty());
        let reason = trouble.split_once(' ').unwrap().0;
        assert_eq!((reason, trouble.contains(':')), (status.to_string().as_str(), false), "{trouble}");
        let signatures: Vec<String> = receiver
            .requests()
            .iter()
            .map(|request| request.headers["webhook-signature"][3..].to_owned())
            .collect();
        for error in errors.iter().chain([&trouble]) {
            let secrets = ["hunter2", "/hook", SECRET, &SECRET[6..], HEADER, "PIN-", "order"];
            let mut secrets = secrets.into_iter().chain(signatures.iter().map(String::as_str));
            assert_eq!(secrets.find(|secret| error.contains(secret)), None, "{error}");
        }
        bench.stop().await;
    }
}
