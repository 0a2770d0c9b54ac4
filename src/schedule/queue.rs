//! The timer queue: when each PIN in flight is due, and which due PIN is polled first.
//!
//! Has one removable entry per PIN, of 16 bytes plus the tree around it; every operation takes O(log n). Replaces
//! tokio-util's `DelayQueue`, which panics on a delay over two years, never shrinks, and can't find the entry that is
//! latest for its interval. Knows keys and moments; must not know PINs. The owner may mark a key as *doubtful*: such
//! a key is taken last where a poll should not fail.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

use crate::clock::Moment;

/// The index of a PIN in the table of PINs in flight.
pub type Key = u32;

/// One length per doubling of the interval, from 1 ms to 2^31 ms (25 days).
const LENGTHS: usize = 32;

/// Every length exists twice: first for keys that are not doubtful, then for doubtful ones.
const CLASSES: usize = 2 * LENGTHS;

/// The most keys of each class that a search for a probe examines.
const SEARCHED: usize = 32;

/// Intervals of about the same length. Within one class, the key that is due longest is the latest for its interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class(u8);

impl Class {
    /// Returns the class of an interval.
    pub fn of(interval: Duration) -> Self {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        Self(millis.checked_ilog2().map_or(0, |log| log.min(LENGTHS as u32 - 1)) as u8)
    }

    /// Returns the class of the same length for doubtful keys.
    pub fn doubtful(self) -> Self {
        Self(self.0 % LENGTHS as u8 + LENGTHS as u8)
    }

    /// Returns the shortest interval of the class.
    fn interval(self) -> Duration {
        Duration::from_millis(1 << (usize::from(self.0) % LENGTHS))
    }
}

/// An entry of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    pub class: Class,
    pub due: Moment,
    pub key: Key,
}

/// The queue. Contains each key once, with one due moment and one class, which its owner remembers.
#[derive(Debug)]
pub struct Queue {
    classes: [BTreeSet<(Moment, Key)>; CLASSES],
    /// The number of keys due up to `counted_until`. Cached, so that not every call counts a million keys.
    counted: usize,
    counted_until: Moment,
}

impl Default for Queue {
    fn default() -> Self {
        Self { classes: std::array::from_fn(|_| BTreeSet::new()), counted: 0, counted_until: Moment::START }
    }
}

impl Queue {
    /// Inserts a key that is not in the queue.
    pub fn insert(&mut self, key: Key, due: Moment, class: Class) {
        let new = self.classes[usize::from(class.0)].insert((due, key));
        self.counted += usize::from(new && due <= self.counted_until);
    }

    /// Inserts many keys that are not in the queue. Fills an empty queue in a third of the time of single inserts.
    pub fn fill(&mut self, mut waiting: Vec<Waiting>) {
        waiting.sort_unstable();
        for same in waiting.chunk_by(|one, next| one.class == next.class) {
            let Some(Waiting { class, .. }) = same.first() else { continue };
            let keys = &mut self.classes[usize::from(class.0)];
            keys.append(&mut same.iter().map(|waiting| (waiting.due, waiting.key)).collect());
        }
        self.counted += waiting.iter().filter(|waiting| waiting.due <= self.counted_until).count();
    }

    /// Removes a key; returns false if it was not in the queue.
    pub fn remove(&mut self, key: Key, due: Moment, class: Class) -> bool {
        let was_in = self.classes[usize::from(class.0)].remove(&(due, key));
        self.counted -= usize::from(was_in && due <= self.counted_until);
        was_in
    }

    /// Returns when the first key is due.
    pub fn next_due(&self) -> Option<Moment> {
        self.classes.iter().filter_map(|class| Some(class.first()?.0)).min()
    }

    /// Takes the due key that is latest in proportion to its interval. A new PIN with an interval of a second passes
    /// old PINs with intervals of ten minutes, and no PIN waits forever.
    pub fn pop(&mut self, now: Moment) -> Option<Key> {
        let (class, _) = self.latest(now)?;
        let (due, key) = self.classes[class].pop_first()?;
        self.counted -= usize::from(due <= self.counted_until);
        Some(key)
    }

    /// Returns the class of the due key that is latest in proportion to its interval, and how many intervals late that is.
    fn latest(&self, now: Moment) -> Option<(usize, f64)> {
        let lateness = |class: usize, due: Moment| {
            now.since(due).as_secs_f64() / Class(class as u8).interval().as_secs_f64()
        };
        let heads = self.classes.iter().enumerate().filter_map(|(class, keys)| {
            let &(due, _) = keys.first()?;
            (due <= now).then(|| (class, lateness(class, due)))
        });
        heads.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns by how many intervals the latest due key is late, at most twice the truth; 0 if none is due.
    pub fn intervals_late(&self, now: Moment) -> f64 {
        self.latest(now).map_or(0.0, |(_, late)| late)
    }

    /// Returns a key for a poll that tests the API or the credentials, among those for which `takes` returns true.
    ///
    /// Prefers a due key that is not doubtful, from the shortest class and due most recently; then the doubtful key
    /// that is due longest; then a key that is not due yet, doubtful ones last. Examines at most [`SEARCHED`] keys of
    /// each class. `None` if it finds no key.
    pub fn find_probe(&self, now: Moment, takes: impl Fn(Key) -> bool) -> Option<Waiting> {
        let find = |keys: &mut dyn Iterator<Item = &(Moment, Key)>| {
            keys.take(SEARCHED).find(|(_, key)| takes(*key)).copied()
        };
        let until_now = ..=(now, Key::MAX);
        let after_now = (Excluded((now, Key::MAX)), Unbounded);
        let all = || self.classes.iter().enumerate();
        let (class, (due, key)) = all()
            .take(LENGTHS)
            .find_map(|(class, keys)| Some((class, find(&mut keys.range(until_now).rev())?)))
            .or_else(|| {
                let doubtful = all().skip(LENGTHS);
                let found =
                    doubtful.filter_map(|(class, keys)| Some((class, find(&mut keys.range(until_now))?)));
                found.min_by_key(|(_, first)| *first)
            })
            .or_else(|| {
                let found =
                    all().filter_map(|(class, keys)| Some((class, find(&mut keys.range(after_now))?)));
                found.min_by_key(|(class, first)| (*class >= LENGTHS, *first))
            })?;
        Some(Waiting { class: Class(class as u8), due, key })
    }

    /// Returns how many keys are due. Takes O(n) in the keys that became due since the last call and are still in the
    /// queue; `now` must not decrease.
    pub fn due(&mut self, now: Moment) -> usize {
        if now > self.counted_until {
            let new = (Excluded((self.counted_until, Key::MAX)), Included((now, Key::MAX)));
            self.counted += self.classes.iter().map(|class| class.range(new).count()).sum::<usize>();
            self.counted_until = now;
        }
        self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const T0: Moment = Moment::START;

    #[test]
    fn keys_leave_the_queue_in_order_and_not_before_they_are_due() {
        let mut queue = Queue::default();
        let class = Class::of(SECOND);
        for key in 0..3 {
            queue.insert(key, T0.after((3 - key) * SECOND), class);
        }
        assert_eq!(queue.next_due(), Some(T0.after(SECOND)));
        assert_eq!(queue.pop(T0), None);
        let late = T0.after(10 * SECOND);
        assert_eq!(queue.due(late), 3);
        assert_eq!(
            [queue.pop(late), queue.pop(late), queue.pop(late), queue.pop(late)],
            [Some(2), Some(1), Some(0), None]
        );
    }

    #[test]
    fn a_removed_key_does_not_leave_the_queue_again() {
        let mut queue = Queue::default();
        let class = Class::of(SECOND);
        queue.insert(7, T0, class);
        assert!(queue.remove(7, T0, class));
        assert!(!queue.remove(7, T0, class));
        assert_eq!((queue.pop(T0), queue.next_due()), (None, None));
    }

    #[test]
    fn the_key_that_is_latest_for_its_interval_is_polled_first() {
        let mut queue = Queue::default();
        let old = Class::of(600 * SECOND);
        for key in 0..1000 {
            queue.insert(key, T0, old);
        }
        queue.insert(5000, T0.after(50 * SECOND), Class::of(SECOND));
        assert_eq!(queue.pop(T0.after(52 * SECOND)), Some(5000));
        // An old PIN is not starved: ten minutes of lateness weigh as much for it as a second for a new one.
        queue.insert(5001, T0.after(700 * SECOND), Class::of(SECOND));
        assert_eq!(queue.pop(T0.after(700 * SECOND)), Some(0));
    }

    #[test]
    fn a_probe_takes_the_newest_sound_key_then_a_doubtful_one_then_one_that_is_early() {
        let mut queue = Queue::default();
        let (short, long) = (Class::of(SECOND), Class::of(600 * SECOND));
        let now = T0.after(100 * SECOND);
        queue.insert(1, T0, short.doubtful());
        queue.insert(2, T0.after(50 * SECOND), long);
        queue.insert(3, T0.after(98 * SECOND), short);
        queue.insert(4, T0.after(99 * SECOND), short);
        queue.insert(5, T0.after(101 * SECOND), short);
        queue.insert(6, T0.after(50 * SECOND), long.doubtful());
        let probes: Vec<_> = std::iter::from_fn(|| {
            let Waiting { class, due, key } = queue.find_probe(now, |key| key != 3)?;
            queue.remove(key, due, class).then_some(key)
        })
        .collect();
        assert_eq!(probes, [4, 2, 1, 6, 5]);
        assert_eq!((queue.pop(now), queue.pop(now)), (Some(3), None));
    }

    #[test]
    fn the_number_of_due_keys_is_right_after_any_inserts_and_removals() {
        let mut queue = Queue::default();
        let mut random = fastrand::Rng::with_seed(7);
        let mut inside = Vec::new();
        let mut now = T0;
        for key in 0..5_000 {
            let (due, class) = (T0.after(SECOND * random.u32(..300)), Class::of(SECOND * random.u32(1..600)));
            queue.insert(key, due, class);
            inside.push((key, due, class));
            match random.u8(..10) {
                0..4 => {
                    let (key, due, class) = inside.swap_remove(random.usize(..inside.len()));
                    assert!(queue.remove(key, due, class));
                    assert!(!queue.remove(key, due, class), "what is not in is not counted out");
                }
                4..8 => {
                    let popped = queue.pop(now);
                    inside.retain(|(key, ..)| Some(*key) != popped);
                }
                8 => now = now.after(Duration::from_millis(random.u64(..500))),
                _ => {
                    assert_eq!(queue.due(now), inside.iter().filter(|(_, due, _)| *due <= now).count());
                }
            }
        }
    }

    #[test]
    fn filling_a_queue_at_once_equals_single_inserts() {
        let (mut filled, mut one_by_one) = (Queue::default(), Queue::default());
        let mut random = fastrand::Rng::with_seed(11);
        let mut now = T0.after(50 * SECOND);
        for key in 0..1_000 {
            // Some are due before and some after the moment up to which due keys were counted.
            let due = T0.after(SECOND * random.u32(..300));
            for queue in [&mut filled, &mut one_by_one] {
                queue.insert(key, due, Class::of(SECOND));
                queue.due(now);
            }
        }
        let waiting: Vec<Waiting> = (1_000..5_000)
            .map(|key| Waiting {
                class: Class::of(SECOND * random.u32(1..600)),
                due: T0.after(SECOND * random.u32(..300)),
                key,
            })
            .collect();
        waiting.iter().for_each(|one| one_by_one.insert(one.key, one.due, one.class));
        filled.fill(waiting);
        for _ in 0..400 {
            assert_eq!(filled.due(now), one_by_one.due(now));
            for _ in 0..13 {
                assert_eq!(filled.pop(now), one_by_one.pop(now));
            }
            now = now.after(SECOND);
        }
        assert_eq!((filled.next_due(), filled.due(now)), (None, 0));
    }

    #[test]
    fn every_interval_has_a_class() {
        for interval in [Duration::ZERO, Duration::from_nanos(1), SECOND, Duration::MAX] {
            let class = Class::of(interval);
            assert!(
                usize::from(class.0) < LENGTHS && class.interval() <= interval.max(Duration::from_millis(1))
            );
        }
    }
}
