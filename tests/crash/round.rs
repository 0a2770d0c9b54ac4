//! Runs the daemon again and again in the same place; each run ends with a kill or a stop.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::WEBHOOK;
use super::compare::compare;
use super::load::Clients;
use super::receiver::Receiver;
use crate::support::{Place, Simulated, json, until};

/// Clients that submit at once.
const SUBMITTERS: usize = 3;

/// PINs submitted in one life of the daemon, at most.
const PINS: usize = 120;

/// The faults, and their consequences.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub kills: u64,
    pub kills_before_ready: u64,
    pub stops: u64,
    pub rotations_with_signal: u64,
    pub rotations_without_signal: u64,
    pub rotations_while_dead: u64,
    pub half_lines_planted: u64,
    pub half_lines_cut: u64,
    pub half_lines_left_alone: u64,
    pub neighbours_planted: u64,
    pub starts_with_a_file_ahead_of_its_cursor: u64,
    pub pins: u64,
    pub acked_accepted: u64,
    pub acked_duplicate: u64,
    pub acked_finished: u64,
    pub submitted_again_for_want_of_an_answer: u64,
    pub refused_by_a_stopping_daemon: u64,
    pub outcomes_in_the_store: u64,
    pub outcomes_followed: u64,
    pub lines_in_files: u64,
    pub webhooks: u64,
    pub webhooks_doubled: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        let Self {
            kills,
            kills_before_ready,
            stops,
            rotations_with_signal,
            rotations_without_signal,
            rotations_while_dead,
            half_lines_planted,
            half_lines_cut,
            half_lines_left_alone,
            neighbours_planted,
            starts_with_a_file_ahead_of_its_cursor,
            pins,
            acked_accepted,
            acked_duplicate,
            acked_finished,
            submitted_again_for_want_of_an_answer,
            refused_by_a_stopping_daemon,
            outcomes_in_the_store,
            outcomes_followed,
            lines_in_files,
            webhooks,
            webhooks_doubled,
        } = self;
        *kills += other.kills;
        *kills_before_ready += other.kills_before_ready;
        *stops += other.stops;
        *rotations_with_signal += other.rotations_with_signal;
        *rotations_without_signal += other.rotations_without_signal;
        *rotations_while_dead += other.rotations_while_dead;
        *half_lines_planted += other.half_lines_planted;
        *half_lines_cut += other.half_lines_cut;
        *half_lines_left_alone += other.half_lines_left_alone;
        *neighbours_planted += other.neighbours_planted;
        *starts_with_a_file_ahead_of_its_cursor += other.starts_with_a_file_ahead_of_its_cursor;
        *pins += other.pins;
        *acked_accepted += other.acked_accepted;
        *acked_duplicate += other.acked_duplicate;
        *acked_finished += other.acked_finished;
        *submitted_again_for_want_of_an_answer += other.submitted_again_for_want_of_an_answer;
        *refused_by_a_stopping_daemon += other.refused_by_a_stopping_daemon;
        *outcomes_in_the_store += other.outcomes_in_the_store;
        *outcomes_followed += other.outcomes_followed;
        *lines_in_files += other.lines_in_files;
        *webhooks += other.webhooks;
        *webhooks_doubled += other.webhooks_doubled;
    }
}

/// Many runs in one place.
pub struct Epoch {
    place: Place,
    number: usize,
    random: fastrand::Rng,
    clients: Clients,
    receiver: Option<Receiver>,
    rotations: usize,
    /// Files of others, with their content.
    neighbours: Vec<(PathBuf, Vec<u8>)>,
    pub counts: Counts,
}

impl Epoch {
    pub fn new(api: &Simulated, number: usize, random: fastrand::Rng) -> Self {
        let place = Place::in_folders(&api.base_url());
        let receiver = WEBHOOK.then(Receiver::start);
        if let Some(receiver) = &receiver {
            place.configure(&format!("[[sink]]\ntype = \"webhook\"\nurl = {:?}\n", receiver.url()));
        }
        let (clients, counts) = (Clients::refused_only_for(&["shutting_down"]), Counts::default());
        Self { place, number, random, clients, receiver, rotations: 0, neighbours: Vec::new(), counts }
    }

    /// One run: maybe a change of files before it, load and maybe a rotation during it, a kill or a stop at its end.
    pub fn round(&mut self) {
        self.disturb_files();
        let fresh = self.random.usize(..PINS);
        self.clients.more(self.number, fresh, &mut self.random);
        let (early, stopped) = (self.random.u8(..6) == 0, self.random.u8(..10) == 0);
        let life = Duration::from_millis(self.random.u64(if early { 0..60 } else { 5..400 }));
        let rotation = self.random.u8(..12);

        let over = AtomicBool::new(false);
        let (place, clients) = (&self.place, &self.clients);
        let socket = place.socket();
        thread::scope(|scope| {
            // Also if this thread panics; else the others would never end.
            let _end = SetAtEnd(&over);
            for _ in 0..SUBMITTERS {
                let random = self.random.fork();
                scope.spawn(|| clients.submit(&socket, &over, random));
            }
            scope.spawn(|| clients.follow(&socket, &over));
            let mut daemon = place.spawn();
            if !early {
                daemon = daemon.ready();
            }
            if rotation < 2 && !early {
                let rest = life.mul_f64(self.random.f64());
                thread::sleep(life - rest);
                place.rotate(self.rotations);
                self.rotations += 1;
                if rotation == 0 {
                    daemon.signal(Signal::HUP);
                    self.counts.rotations_with_signal += 1;
                } else {
                    self.counts.rotations_without_signal += 1;
                }
                thread::sleep(rest);
            } else {
                thread::sleep(life);
            }
            if let Some(status) = daemon.ended() {
                panic!("the daemon ended by itself with {status}:\n{}", daemon.log());
            }
            if stopped && !early {
                daemon.terminate();
                self.counts.stops += 1;
            } else {
                daemon.kill9();
                self.counts.kills += 1;
                self.counts.kills_before_ready += u64::from(early);
            }
        });
    }

    /// Changes files while no daemon runs.
    fn disturb_files(&mut self) {
        if self.random.u8(..8) == 0 {
            self.add_files_beside_the_log();
            self.counts.neighbours_planted += 1;
        }
        if self.random.u8(..8) == 0 && self.append_half_line().is_some() {
            self.counts.half_lines_planted += 1;
        }
        if self.random.u8(..10) == 0 {
            self.place.rotate(self.rotations);
            self.rotations += 1;
            self.counts.rotations_while_dead += 1;
        }
    }

    /// Appends the beginning of the next line, as a kill in the middle of a write leaves it.
    fn append_half_line(&mut self) -> Option<()> {
        let mut file = fs::File::options().append(true).open(self.place.results()).ok()?;
        let files = self.place.all_results();
        // A kill may have left an incomplete line already, also in a rotated file.
        let last = files.iter().rfind(|file| !file.is_empty())?;
        let last = last.strip_suffix('\n')?.lines().last()?;
        let next = self.place.record_after(json(last)["seq"].as_i64()?)?;
        file.write_all(&next.as_bytes()[..self.random.usize(1..next.len())]).ok()
    }

    /// Adds files beside the result file that look like newer rotated ones.
    fn add_files_beside_the_log(&mut self) {
        let text = fs::read(self.place.results()).unwrap_or_default();
        let copied = &text[..self.random.usize(..=text.len())];
        for (name, content) in [("copy", copied), ("pos", b"{\"seq\":"), ("gz", b"\x1f\x8b\n{")] {
            let path = self.place.out.join(format!("outcomes.jsonl.{name}"));
            fs::write(&path, content).expect("a file can be made");
            self.neighbours.retain(|(planted, _)| *planted != path);
            self.neighbours.push((path, content.to_vec()));
        }
    }

    /// Runs until every PIN is acknowledged and has its outcome everywhere, stops, and compares.
    pub fn finish(mut self) -> Counts {
        let daemon = self.place.start();
        let over = AtomicBool::new(false);
        let socket = self.place.socket();
        thread::scope(|scope| {
            let _end = SetAtEnd(&over);
            let random = self.random.fork();
            scope.spawn(|| self.clients.submit(&socket, &over, random));
            until("every PIN is acked", || (self.clients.unacked() == 0).then_some(()));
        });
        let mut client = daemon.client();
        until("every outcome is delivered", || {
            let stats = client.stats();
            let sinks = stats["sinks"].as_object()?;
            let delivered = sinks.values().all(|sink| sink["behind"] == 0 && sink["retrying"] == 0);
            (stats["inFlight"] == 0 && delivered).then_some(())
        });
        let outbox = client.outbox();
        drop(client);
        self.counts.half_lines_cut = daemon.times_logged("a half-written line was cut off") as u64;
        self.counts.starts_with_a_file_ahead_of_its_cursor =
            daemon.times_logged("ahead of the cursor") as u64;
        daemon.terminate();
        for (path, content) in &self.neighbours {
            let now = fs::read(path).expect("nobody removes it");
            assert!(now == *content, "{} was changed", path.display());
        }
        let webhooks = self.receiver.as_ref().map(Receiver::received);
        compare(&self.clients.lock(), &outbox, &self.place.all_results(), webhooks, &mut self.counts);
        self.counts
    }
}

struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
