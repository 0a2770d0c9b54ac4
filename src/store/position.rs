//! How far somebody has read the outcomes.
//!
//! One `seq` would not do where several nodes share a store: a node may commit a lower one after another committed a
//! higher one, and who had gone on from the higher one would never see it. Each node has a lane of the outbox, and
//! within a lane the order of `seq` is that of commits; so a position is one `seq` for each lane.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Outcome;

/// The lane of a store that has no other.
pub const ONLY_LANE: i32 = 0;

/// A place in the stream of outcomes: all up to it were read. As text it is `p`, and what only this file has to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    lanes: BTreeMap<i32, i64>,
    /// Of lanes that are not among these.
    others: i64,
}

/// What is behind a position, all of it at one moment.
#[derive(Debug, Default)]
pub struct Stretch {
    /// In the order of `seq`, each with its lane.
    pub outcomes: Vec<(i32, Outcome)>,
    /// Lanes of which retention has removed outcomes behind the position, each with the highest `seq` of these.
    pub removed: Vec<(i32, i64)>,
    /// Whether there may be more outcomes behind these.
    pub more: bool,
}

impl Position {
    /// Behind this `seq` in every lane; none is below 1.
    pub fn after(seq: i64) -> Self {
        Self { lanes: BTreeMap::new(), others: seq.max(0) }
    }

    /// Behind a `seq` in each of these lanes, and before all of those that come later.
    pub fn of(lanes: impl IntoIterator<Item = (i32, i64)>) -> Self {
        Self { lanes: lanes.into_iter().collect(), others: 0 }
    }

    /// The lanes that have a `seq` of their own here, each with it.
    pub fn lanes(&self) -> (Vec<i32>, Vec<i64>) {
        self.lanes.iter().unzip()
    }

    /// The `seq` for all lanes that have none of their own here.
    pub fn others(&self) -> i64 {
        self.others
    }

    /// The last `seq` of a lane that was read.
    pub fn in_lane(&self, lane: i32) -> i64 {
        self.lanes.get(&lane).copied().unwrap_or(self.others)
    }

    /// Goes on to this `seq` of a lane, if it is not there yet.
    pub fn advance(&mut self, lane: i32, seq: i64) {
        let seq = seq.max(self.in_lane(lane));
        if lane == ONLY_LANE {
            *self = Self::after(seq);
        } else {
            self.lanes.insert(lane, seq);
        }
    }

    /// The highest `seq` that was read in any lane.
    pub fn highest(&self) -> i64 {
        self.lanes.values().copied().fold(self.others, i64::max)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.others)?;
        self.lanes.iter().try_for_each(|(lane, seq)| write!(f, ",{lane}:{seq}"))
    }
}

/// Text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a position that an answer gave")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.strip_prefix('p').ok_or(InvalidPosition)?.split(',');
        let seq = |text: &str| text.parse().ok().filter(|seq: &i64| *seq >= 0);
        let others = parts.next().and_then(seq).ok_or(InvalidPosition)?;
        let lane = |part: &str| {
            let (lane, text) = part.split_once(':')?;
            Some((lane.parse().ok()?, seq(text)?))
        };
        let lanes = parts.map(|part| lane(part).ok_or(InvalidPosition)).collect::<Result<_, _>>()?;
        Ok(Self { lanes, others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_its_text() {
        let mut moved = Position::of([(3, 120), (4, 0)]);
        moved.advance(3, 7);
        moved.advance(9, 121);
        let mut alone = Position::after(-8);
        alone.advance(ONLY_LANE, 42);
        for (position, text) in
            [(Position::default(), "p0"), (alone, "p42"), (moved.clone(), "p0,3:120,4:0,9:121")]
        {
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse(), Ok(position));
        }
        assert_eq!((moved.in_lane(3), moved.in_lane(5), moved.highest()), (120, 0, 121));
        for text in [
            "",
            "p",
            "42",
            "p42,",
            "p42,3",
            "p42,3:",
            "p42,:3",
            "p42,3:x",
            "p42,3:-1",
            "p-1",
            "q42",
            "p 42",
            "p99999999999999999999",
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
