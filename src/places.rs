//! Limits the number of connections: how many each user may have, and which one is closed for a new one.
//!
//! Promises that no user but an administrator has more than its share, and that the last places are reserved for
//! administrators. A new connection for which there is no place replaces the one that has been idle longest among those it
//! may replace, if that was idle for [`Rules::idle`]; otherwise it is refused. Does not know what connections are for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many connections are allowed.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// In total.
    pub all: usize,
    /// For one user who is no administrator.
    pub share: usize,
    /// How many of the total only administrators may take.
    pub reserved: usize,
    /// How long a connection must have been idle before it may be closed for another.
    pub idle: Duration,
}

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Administrator,
    /// Anybody else, by a number: of a local user, or of a network address.
    Other(u128),
}

/// Hands out places. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Places(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rules: Rules,
    /// The number of the next place.
    next: u64,
    taken: BTreeMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    user: User,
    /// Since when its connection has been idle; `None` while it is busy.
    idle_since: Option<Instant>,
    evicted: CancellationToken,
}

/// All places are taken, and no connection may be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    #[error("you have {share} connections already, which is one user's share of {all}")]
    Share { share: usize, all: usize },
    #[error(
        "all {all} connections are taken, or the last ones are reserved for root and the daemon's own user"
    )]
    All { all: usize },
}

impl Full {
    /// The number that was reached.
    pub fn share(self) -> usize {
        match self {
            Self::Share { share, .. } => share,
            Self::All { all } => all,
        }
    }
}

impl Places {
    pub fn new(rules: Rules) -> Self {
        Self(Arc::new(Mutex::new(State { rules, next: 0, taken: BTreeMap::new() })))
    }

    /// Takes a place for a new connection, which counts as idle.
    pub fn take(&self, user: User) -> Result<Place, Full> {
        let share = self.lock().rules.share;
        self.take_of(user, share)
    }

    /// As [`Places::take`], for a user who may have this many instead of [`Rules::share`].
    pub fn take_of(&self, user: User, share: usize) -> Result<Place, Full> {
        let mut state = self.lock();
        let Rules { all, reserved, .. } = state.rules;
        let is_other = |of: &Taken| of.user != User::Administrator;
        let of_user = state.taken.values().filter(|of| of.user == user).count();
        let of_others = state.taken.values().filter(|of| is_other(of)).count();
        let has_share = user != User::Administrator && of_user >= share;
        let is_full = match user {
            User::Administrator => state.taken.len() >= all,
            User::Other(_) => state.taken.len() >= all || of_others >= all.saturating_sub(reserved),
        };
        if has_share {
            state.close_idle(|of| of.user == user).ok_or(Full::Share { share, all })?;
        } else if is_full {
            // An administrator's connection is never closed for another user's.
            let may = |of: &Taken| user == User::Administrator || is_other(of);
            state.close_idle(may).ok_or(Full::All { all })?;
        }
        let (number, evicted) = (state.next, CancellationToken::new());
        state.next += 1;
        let taken = Taken { user, idle_since: Some(Instant::now()), evicted: evicted.clone() };
        state.taken.insert(number, taken);
        Ok(Place { places: self.clone(), number, evicted })
    }

    /// The number of places taken.
    pub fn count(&self) -> usize {
        self.lock().taken.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Closes the connection that has been idle longest, among those that `may` be closed, if it was idle long enough.
    fn close_idle(&mut self, may: impl Fn(&Taken) -> bool) -> Option<()> {
        let idle = self.taken.iter().filter(|(_, of)| may(of));
        let idle = idle.filter_map(|(number, of)| Some((of.idle_since?, *number)));
        let (since, number) = idle.min()?;
        if since.elapsed() < self.rules.idle {
            return None;
        }
        self.taken.remove(&number).map(|of| of.evicted.cancel())
    }
}

/// One connection's place. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    places: Places,
    number: u64,
    evicted: CancellationToken,
}

impl Place {
    /// Marks the connection as waiting for its client.
    pub fn now_idle(&self) {
        self.set_idle_since(Some(Instant::now()));
    }

    /// Marks the connection as working.
    pub fn now_busy(&self) {
        self.set_idle_since(None);
    }

    /// Waits until the connection must end because another one got its place.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        if let Some(taken) = self.places.lock().taken.get_mut(&self.number) {
            taken.idle_since = since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::User::{Administrator, Other};
    use super::*;

    const RULES: Rules = Rules { all: 8, share: 4, reserved: 2, idle: Duration::from_secs(60) };

    fn take(places: &Places, user: User, count: usize) -> Vec<Place> {
        (0..count).map(|_| places.take(user).unwrap()).collect()
    }

    fn has_to_end(place: &Place) -> bool {
        place.evicted.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn each_user_has_a_share_and_the_last_places_are_reserved_for_administrators() {
        let places = Places::new(RULES);
        let mine = take(&places, Other(7), 4);
        assert_eq!(places.take(Other(7)).unwrap_err(), Full::Share { share: 4, all: 8 });
        let theirs = take(&places, Other(8), 2);
        assert_eq!(places.take(Other(9)).unwrap_err(), Full::All { all: 8 });
        let admins = take(&places, Administrator, 2);
        assert_eq!(places.take(Administrator).unwrap_err(), Full::All { all: 8 });
        assert_eq!(places.count(), 8);
        drop((mine, theirs, admins));
        assert_eq!(places.count(), 0);
        assert_eq!(take(&places, Administrator, 8).len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_idle_longest_is_closed_and_a_busy_one_is_not() {
        let places = Places::new(RULES);
        let mine = take(&places, Other(7), 4);
        mine[0].now_busy();
        tokio::time::advance(RULES.idle / 2).await;
        mine[1].now_busy();
        mine[1].now_idle();
        tokio::time::advance(RULES.idle / 2).await;
        let new = places.take(Other(7)).unwrap();
        assert_eq!([0, 1, 2, 3].map(|at| has_to_end(&mine[at])), [false, false, true, false]);
        // The closed one has no place to free when it ends.
        drop(mine);
        assert_eq!((places.count(), has_to_end(&new)), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_closes_only_its_own_connections_and_an_administrator_closes_any() {
        let places = Places::new(RULES);
        let admins = take(&places, Administrator, 4);
        tokio::time::advance(RULES.idle).await;
        let mine = take(&places, Other(7), 4);
        tokio::time::advance(RULES.idle / 2).await;
        assert_eq!(places.take(Other(8)).unwrap_err(), Full::All { all: 8 }, "the administrators stay");
        tokio::time::advance(RULES.idle / 2).await;
        let new = places.take(Other(7)).unwrap();
        assert!(has_to_end(&mine[0]) && !admins.iter().any(has_to_end), "of his own");
        let admin = places.take(Administrator).unwrap();
        assert!(has_to_end(&admins[0]), "an administrator gets in");
        assert_eq!((has_to_end(&new), has_to_end(&admin)), (false, false));
    }

    #[tokio::test]
    async fn a_task_that_panics_frees_its_place() {
        let places = Places::new(RULES);
        let place = places.take(Administrator).unwrap();
        let task = tokio::spawn(async move {
            place.now_busy();
            panic!("as a bug would");
        });
        assert!(task.await.is_err());
        assert_eq!(places.count(), 0);
    }
}
