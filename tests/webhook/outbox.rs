//! What the store keeps for the sink over stops, kills and delivery commands.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use pinwatch::store::{DeliveryCommand, Seqs};
use tokio::sync::watch;

use crate::webhook::bench::{Folder, webhook};
use crate::webhook::receiver::{Answers, Hangs, Receiver, Request, Waits};

#[tokio::test]
async fn the_cursor_survives_a_restart_and_nothing_is_sent_twice() {
    let receiver = Receiver::start(|_, _| Answers(200)).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(50).await;
    bench.until_all_delivered().await;
    bench.stop().await;
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(50).await;
    bench.until_all_delivered().await;
    let seqs: Vec<i64> = receiver.requests().iter().flat_map(Request::seqs).collect();
    assert_eq!((seqs.len(), seqs.into_iter().collect()), (100, (1..=100).collect::<HashSet<i64>>()));
    bench.stop().await;
}

#[tokio::test]
async fn deliveries_that_run_at_a_stop_are_completed_and_count() {
    let (let_go, held) = watch::channel(false);
    let receiver = Receiver::start(move |_, _| Waits(held.clone())).await;
    let folder = Folder::new();
    let mut webhook = webhook(&receiver.url());
    webhook.concurrency = 3;
    let bench = folder.start(&webhook).await;
    bench.outcomes(10).await;
    receiver.wait_for(3).await;
    bench.finish.cancel();
    let_go.send(true).unwrap();
    bench.stop().await;
    assert_eq!(receiver.requests().len(), 3, "nothing was started after the stop");
    let bench = folder.start(&webhook).await;
    bench.until_all_delivered().await;
    assert_eq!(receiver.requests().len(), 10, "and nothing is sent twice");
    bench.stop().await;
}

#[tokio::test]
async fn outcomes_that_a_killed_process_may_have_delivered_are_repeated_with_the_same_id() {
    for batch in [1, 10] {
        let dead = Arc::new(AtomicBool::new(true));
        let is_dead = dead.clone();
        let script = move |_, _: &Request| if is_dead.load(Ordering::SeqCst) { Hangs } else { Answers(200) };
        let receiver = Receiver::start(script).await;
        let folder = Folder::new();
        let mut webhook = webhook(&receiver.url());
        (webhook.concurrency, webhook.batch) = (2, batch);
        let bench = folder.start(&webhook).await;
        bench.finish.cancel();
        bench.outcomes(2 * batch).await;
        bench.stop().await;
        let bench = folder.start(&webhook).await;
        let before = receiver.wait_for(2).await;
        bench.kill().await;
        dead.store(false, Ordering::SeqCst);
        let bench = folder.start(&webhook).await;
        bench.until_all_delivered().await;
        let after = &receiver.requests()[2..];
        assert_eq!(after.len(), 2);
        for request in &before {
            assert!(after.iter().any(|again| (again.id(), &again.body) == (request.id(), &request.body)));
        }
        bench.stop().await;
    }
}

#[tokio::test]
async fn an_outcome_that_waits_for_a_retry_gets_it_after_a_restart() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let script = move |_, request: &Request| match is_broken.load(Ordering::SeqCst) && request.seqs() == [2] {
        true => Answers(500),
        false => Answers(200),
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(3).await;
    bench.until("the others", async |bench| (bench.stored().await.0 == 3).then_some(())).await;
    bench.kill().await;
    broken.store(false, Ordering::SeqCst);
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.until_all_delivered().await;
    let requests = receiver.requests();
    let last = requests.last().unwrap();
    let of_it: Vec<_> = requests.iter().filter(|request| request.seqs() == [2]).collect();
    assert!(of_it.len() >= 2 && of_it.iter().all(|request| request.id() == last.id()));
    bench.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_sent_again_only_by_a_replay_and_with_the_same_id() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let script = move |_, request: &Request| {
        let refused = is_broken.load(Ordering::SeqCst) && request.seqs()[0] <= 3;
        Answers(if refused { 404 } else { 200 })
    };
    let receiver = Receiver::start(script).await;
    let folder = Folder::new();
    let bench = folder.start(&webhook(&receiver.url())).await;
    bench.outcomes(3).await;
    for seq in 1..=3 {
        bench.until_failed(seq, false).await;
    }
    bench.outcomes(1).await;
    for seq in 1..=3 {
        bench.until_failed(seq, true).await;
    }
    let before = receiver.requests();
    broken.store(false, Ordering::SeqCst);
    let sink = || "hook".to_owned();
    let dropped = bench
        .writer
        .command(DeliveryCommand::Drop { sink: sink(), seqs: Seqs::Range(2, 2), at: Timestamp::now() })
        .await
        .unwrap();
    let replay = DeliveryCommand::Replay { sink: sink(), seqs: Seqs::Range(1, 3), only_dead: true };
    let replayed = bench.writer.command(replay).await.unwrap();
    assert_eq!((dropped, replayed), (1, 2));
    bench.until_all_delivered().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), before.len() + 2);
    for again in &requests[before.len()..] {
        assert!(again.seqs() != [2] && before.iter().any(|first| first.id() == again.id()));
    }
    // A delivered outcome is sent again on request, too.
    let replay = DeliveryCommand::Replay { sink: sink(), seqs: Seqs::Range(1, 1), only_dead: false };
    assert_eq!(bench.writer.command(replay).await.unwrap(), 1);
    let requests = receiver.wait_for(before.len() + 3).await;
    assert_eq!(requests[before.len() + 2].seqs(), [1]);
    bench.until_all_delivered().await;
    bench.stop().await;
}
