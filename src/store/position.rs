//! A reader's position in the outcomes.
//!
//! Promises that a reader who continues from its position misses no outcome. One `seq` is not enough where several
//! nodes share a store: a node may commit a low `seq` after another node committed a higher one, and a reader past the
//! higher one would never see it. Each node writes its own partition of the outbox, and commits follow the order of
//! `seq` within a partition; so a position has one `seq` for each partition. Pure; knows nothing of nodes or SQL.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::Outcome;

/// The partition of a store that has only one.
pub const ONLY_PARTITION: i32 = 0;

/// A position in the stream of outcomes: the reader has read everything up to it. Its text begins with `p`; only this
/// file knows the rest of the format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    partitions: BTreeMap<i32, i64>,
    /// The `seq` of the partitions that are not in `partitions`.
    others: i64,
}

/// The outcomes after a position, all read at the same moment.
#[derive(Debug, Default)]
pub struct Stretch {
    /// In the order of `seq`, each with its partition.
    pub outcomes: Vec<(i32, Outcome)>,
    /// The partitions from which retention removed outcomes after the position, each with the highest `seq` removed.
    pub removed: Vec<(i32, i64)>,
    /// Whether more outcomes may follow.
    pub more: bool,
}

impl Position {
    /// The position after this `seq` in every partition; a `seq` below 0 counts as 0.
    pub fn after(seq: i64) -> Self {
        Self { partitions: BTreeMap::new(), others: seq.max(0) }
    }

    /// The position after a `seq` in each of these partitions, and at the start of all others.
    pub fn of(partitions: impl IntoIterator<Item = (i32, i64)>) -> Self {
        Self { partitions: partitions.into_iter().collect(), others: 0 }
    }

    /// The partitions that have their own `seq` here, and these `seq`s.
    pub fn partitions(&self) -> (Vec<i32>, Vec<i64>) {
        self.partitions.iter().unzip()
    }

    /// The `seq` of all other partitions.
    pub fn others(&self) -> i64 {
        self.others
    }

    /// The last `seq` of a partition that was read.
    pub fn in_partition(&self, partition: i32) -> i64 {
        self.partitions.get(&partition).copied().unwrap_or(self.others)
    }

    /// Moves forward to this `seq` of a partition; never moves back.
    pub fn advance(&mut self, partition: i32, seq: i64) {
        let seq = seq.max(self.in_partition(partition));
        if partition == ONLY_PARTITION {
            *self = Self::after(seq);
        } else {
            self.partitions.insert(partition, seq);
        }
    }

    /// The highest `seq` that was read in any partition.
    pub fn highest(&self) -> i64 {
        self.partitions.values().copied().fold(self.others, i64::max)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.others)?;
        self.partitions.iter().try_for_each(|(partition, seq)| write!(f, ",{partition}:{seq}"))
    }
}

/// The text is not a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a position that an answer gave")]
pub struct InvalidPosition;

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let mut parts = text.strip_prefix('p').ok_or(InvalidPosition)?.split(',');
        let seq = |text: &str| text.parse().ok().filter(|seq: &i64| *seq >= 0);
        let others = parts.next().and_then(seq).ok_or(InvalidPosition)?;
        let partition = |part: &str| {
            let (partition, text) = part.split_once(':')?;
            Some((partition.parse().ok()?, seq(text)?))
        };
        let partitions =
            parts.map(|part| partition(part).ok_or(InvalidPosition)).collect::<Result<_, _>>()?;
        Ok(Self { partitions, others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_from_its_text() {
        let mut moved = Position::of([(3, 120), (4, 0)]);
        moved.advance(3, 7);
        moved.advance(9, 121);
        let mut alone = Position::after(-8);
        alone.advance(ONLY_PARTITION, 42);
        for (position, text) in
            [(Position::default(), "p0"), (alone, "p42"), (moved.clone(), "p0,3:120,4:0,9:121")]
        {
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse(), Ok(position));
        }
        assert_eq!((moved.in_partition(3), moved.in_partition(5), moved.highest()), (120, 0, 121));
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
