//! The clients of the crash test: some submit, pipelined, one follows the outcomes. They outlive each daemon.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Client, json};

/// PINs that one client writes before it reads an answer.
const PIPELINED: usize = 40;

/// A kind of PIN, as the simulator scripts it, and how it ends.
struct Kind {
    what: &'static str,
    deadline: Option<&'static str>,
    outcome: &'static str,
    delivered: Option<bool>,
}

const fn kind(what: &'static str, outcome: &'static str, delivered: Option<bool>) -> Kind {
    Kind { what, deadline: None, outcome, delivered }
}

const KINDS: &[Kind] = &[
    kind("delivered", "final", Some(true)),
    kind("100ms", "final", Some(true)),
    kind("failed", "final", Some(false)),
    kind("call", "final", Some(true)),
    kind("30ms", "final", Some(true)),
    kind("404", "not_found", None),
    kind("unknown", "final", None),
    kind("400", "rejected", None),
    Kind { deadline: Some("300ms"), ..kind("waiting", "deadline", None) },
];

/// A PIN to submit, and its expected end.
#[derive(Debug, Clone)]
pub struct Pin {
    pub id: String,
    pub line: String,
    pub outcome: &'static str,
    pub delivered: Option<bool>,
    pub reference: Option<String>,
    /// How often it was sent to a daemon that did not answer.
    pub unanswered: u32,
}

impl Pin {
    fn new(epoch: usize, number: usize, random: &mut fastrand::Rng) -> Self {
        let kind = &KINDS[number % KINDS.len()];
        let id = format!("sim-{}-e{epoch}n{number}", kind.what);
        let mut request = json!({"op": "submit", "pinId": id});
        let mut reference = None;
        if random.u8(..3) == 0 {
            // Long lines, some over several pages: those may be incomplete after a kill.
            let text = format!("order-{number}-{}", "x".repeat(random.usize(..200)));
            let metadata = json!({"number": number, "note": "ü".repeat(random.usize(..6000))});
            request["reference"] = text.as_str().into();
            request["metadata"] = metadata;
            reference = Some(text);
        }
        if let Some(deadline) = kind.deadline {
            request["deadline"] = deadline.into();
        }
        let bare = reference.is_none() && kind.deadline.is_none();
        let line = if bare { format!("{id}\n") } else { format!("{request}\n") };
        let Kind { outcome, delivered, .. } = *kind;
        Self { id, line, outcome, delivered, reference, unanswered: 0 }
    }
}

/// What the clients share: the PINs to submit, and the answers so far.
pub struct Clients(Mutex<Known>);

#[derive(Default)]
pub struct Known {
    waiting: VecDeque<Pin>,
    made: usize,
    /// By PIN ID, the answer that accepted it.
    pub acked: HashMap<String, (Pin, Value)>,
    /// Outcomes as `tail -f` printed them.
    pub followed: Vec<String>,
    pub refused: u64,
    /// The codes of allowed refusals.
    refusals: &'static [&'static str],
}

impl Clients {
    /// Clients that may be refused only with these codes.
    pub fn refused_only_for(refusals: &'static [&'static str]) -> Self {
        Self(Mutex::new(Known { refusals, ..Known::default() }))
    }

    pub fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds this many PINs to submit.
    pub fn more(&self, epoch: usize, count: usize, random: &mut fastrand::Rng) {
        let mut known = self.lock();
        for _ in 0..count {
            let pin = Pin::new(epoch, known.made, random);
            known.made += 1;
            known.waiting.push_back(pin);
        }
    }

    /// PINs that are not acked.
    pub fn unacked(&self) -> usize {
        let known = self.lock();
        known.made - known.acked.len()
    }

    /// Submits to any daemon that listens, until no PIN is left or `over` is set.
    pub fn submit(&self, socket: &Path, over: &AtomicBool, mut random: fastrand::Rng) {
        while !over.load(Ordering::Relaxed) {
            if let Ok(mut client) = Client::try_connect(socket) {
                while self.submit_some(&mut client, &mut random) && !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(random.u64(..8)));
                }
            }
            thread::sleep(Duration::from_millis(3));
        }
    }

    /// Writes some PINs, then reads their answers; false at the end of the connection or of the PINs. A PIN
    /// without an answer is submitted again: its client can't know whether it was accepted.
    fn submit_some(&self, client: &mut Client, random: &mut fastrand::Rng) -> bool {
        let count = random.usize(1..=PIPELINED);
        let mut batch: VecDeque<Pin> = {
            let mut known = self.lock();
            let count = count.min(known.waiting.len());
            known.waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return false;
        }
        let lines: String = batch.iter().map(|pin| pin.line.as_str()).collect();
        let mut alive = client.try_write(&lines).is_ok();
        while alive && !batch.is_empty() {
            let Some(line) = client.whole_line() else {
                alive = false;
                break;
            };
            let (answer, mut known) = (json(&line), self.lock());
            if answer["ok"] == true {
                let pin = batch.pop_front().expect("the batch is not empty");
                assert_eq!(answer["pinId"], pin.id, "answers come in the order of the requests");
                known.acked.insert(pin.id.clone(), (pin, answer));
            } else {
                let code = answer["error"]["code"].as_str().unwrap_or_default();
                if code == "at_capacity" {
                    // Too many connections: a suspended daemon later finds all that were opened meanwhile.
                    alive = false;
                    break;
                }
                assert!(known.refusals.contains(&code), "{line}");
                known.refused += 1;
                known.waiting.extend(batch.pop_front());
            }
        }
        batch.iter_mut().for_each(|pin| pin.unanswered += 1);
        self.lock().waiting.extend(batch);
        alive
    }

    /// Follows the outcomes until `over` is set, always from the one after the last.
    pub fn follow(&self, socket: &Path, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            if let Ok(mut client) = Client::try_connect(socket) {
                let next =
                    self.lock().followed.last().map_or(1, |line| json(line)["seq"].as_i64().unwrap() + 1);
                let request = json!({"op": "tail", "from": next, "follow": true});
                let asked = client.try_write(format!("{request}\n")).is_ok();
                while let (true, Some(line)) = (asked, client.whole_line()) {
                    if json(&line)["ok"] == false {
                        break;
                    }
                    self.lock().followed.push(line);
                }
            }
            thread::sleep(Duration::from_millis(3));
        }
    }
}
