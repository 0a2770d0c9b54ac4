//! Draws ages on a logarithmic axis, each row a line of characters: marks, bars, and labels below them.
//!
//! Promises lines of at most the axis' width, for any numbers. Pure.

/// The characters that rows are drawn with.
#[derive(Debug, Clone, Copy)]
pub struct Glyphs {
    one: char,
    several: char,
    /// From the lowest to the highest.
    bars: [char; 8],
}

/// For terminals that show Unicode's block characters.
pub const BLOCKS: Glyphs =
    Glyphs { one: '│', several: '┃', bars: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] };

/// For all others.
pub const ASCII: Glyphs = Glyphs { one: '|', several: '#', bars: ['.', ':', '-', '=', '+', '*', '%', '#'] };

/// A bar that is lower than this part of the highest is not drawn.
const LOWEST: f64 = 0.02;

/// The least number of blanks between two labels.
const GAP: usize = 2;

/// Ages in seconds, from the left end to the right end of a row.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    from: f64,
    to: f64,
    width: usize,
}

impl Axis {
    /// `None` unless `0 < from < to` and there is at least one column.
    pub fn new(from: f64, to: f64, width: usize) -> Option<Self> {
        (from > 0.0 && to > from && to.is_finite() && width > 0).then_some(Self { from, to, width })
    }

    /// The column of an age, if it is on the axis.
    fn column(&self, age: f64) -> Option<usize> {
        let along = (age / self.from).ln() / (self.to / self.from).ln();
        (0.0..=1.0).contains(&along).then(|| ((along * self.width as f64) as usize).min(self.width - 1))
    }

    /// Returns the age at which a column begins; `column == width` gives the right end of the axis.
    fn begin(&self, column: usize) -> f64 {
        self.from * (self.to / self.from).powf(column as f64 / self.width as f64)
    }

    /// Draws a mark at each age, and a different one where several share a column.
    pub fn marks(&self, ages: impl Iterator<Item = f64>, glyphs: &Glyphs) -> String {
        let mut counts = vec![0_usize; self.width];
        ages.filter_map(|age| self.column(age)).for_each(|column| counts[column] += 1);
        let mark = |count: usize| match count {
            0 => ' ',
            1 => glyphs.one,
            2.. => glyphs.several,
        };
        line(counts.into_iter().map(mark))
    }

    /// Draws bars: the height of each shows what its column adds to a sum that grows with age.
    pub fn bars(&self, sum_at: impl Fn(f64) -> f64, glyphs: &Glyphs) -> String {
        let sums: Vec<f64> = (0..=self.width).map(|column| sum_at(self.begin(column))).collect();
        let added: Vec<f64> = sums.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let highest = added.iter().copied().fold(0.0, f64::max);
        let bar = |added: f64| {
            let height = added / highest;
            if height > LOWEST { glyphs.bars[((height * 8.0) as usize).min(7)] } else { ' ' }
        };
        line(added.into_iter().map(bar))
    }

    /// Draws labels, each beginning at its age; leaves out one that has no room.
    pub fn labels(&self, labels: impl Iterator<Item = (f64, String)>) -> String {
        let (mut line, mut taken) = (String::new(), 0);
        for (age, label) in labels {
            let Some(column) = self.column(age) else { continue };
            let (length, is_first) = (label.chars().count(), line.is_empty());
            if column + length > self.width || !is_first && column < taken + GAP {
                continue;
            }
            line.extend(std::iter::repeat_n(' ', column - taken));
            line += &label;
            taken = column + length;
        }
        line
    }
}

fn line(columns: impl Iterator<Item = char>) -> String {
    let line: String = columns.collect();
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ten columns to a decade.
    fn axis() -> Axis {
        Axis::new(1.0, 1_000.0, 30).unwrap()
    }

    #[test]
    fn a_chart_marks_each_age_and_uses_another_mark_for_several() {
        let ages = [0.5, 1.0, 10.0, 10.1, 1_000.0, 2_000.0];
        assert_eq!(axis().marks(ages.into_iter(), &ASCII), "|         #                  |");
        assert_eq!(axis().marks([10.0].into_iter(), &BLOCKS), "          │");
    }

    #[test]
    fn the_height_of_a_bar_is_the_increase_in_its_column() {
        // All is added from 10 to 100, evenly over the columns.
        let even = |age: f64| age.log10().clamp(1.0, 2.0);
        assert_eq!(axis().bars(even, &BLOCKS), "          ██████████");
        assert_eq!(axis().bars(|_| 1.0, &BLOCKS), "", "nothing is added");
        let two = |age: f64| {
            if age < 9.0 {
                0.0
            } else if age < 99.0 {
                1.0
            } else {
                1.5
            }
        };
        assert_eq!(axis().bars(two, &ASCII).trim_start(), "#         +");
    }

    #[test]
    fn a_label_that_does_not_fit_is_left_out() {
        let label = |age: f64| (age, format!("{age}s"));
        assert_eq!(axis().labels([1.0, 1.5, 10.0, 900.0].into_iter().map(label)), "1s        10s");
    }

    proptest! {
        #[test]
        fn no_row_is_wider_than_the_axis_with_any_numbers(
            from: f64, to: f64, width in 0_usize..200, ages: Vec<f64>, sum: f64,
        ) {
            for axis in [Axis::new(from, to, width), Axis::new(from.abs(), to.abs(), width)].into_iter().flatten() {
                let labels = ages.iter().map(|age| (*age, "label".to_owned()));
                for row in [
                    axis.marks(ages.iter().copied(), &BLOCKS),
                    axis.bars(|age| age * sum, &BLOCKS),
                    axis.labels(labels),
                ] {
                    prop_assert!(row.chars().count() <= width, "{row:?}");
                }
            }
        }
    }
}
