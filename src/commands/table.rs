//! Formats tables, and lists of names and values, no wider than the terminal.
//!
//! Promises that no line is wider than its limit: a value that does not fit is cut and ends with an ellipsis, or its column is
//! left out, least important first. Values beside their names are wrapped instead, because a user who asks about one thing wants
//! all of it. Without a limit, for programs and with `--wide`, nothing is cut. No text of a submitter or the API can move the
//! cursor or colour the screen. Must not know streams: it only makes strings.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::text::printable;

/// Spaces between two columns.
const GAP: usize = 2;

/// Values next to their names get at least this many columns when they are wrapped.
const NARROWEST: usize = 20;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    heading: &'static str,
    /// The column's importance: 1 is never left out; the largest number is left out first.
    rank: u8,
    /// The least width. If the columns need more room than that, columns are left out.
    least: usize,
}

impl Column {
    /// A column that is shown in full or left out.
    pub const fn new(heading: &'static str, rank: u8) -> Self {
        Self { heading, rank, least: usize::MAX }
    }

    /// Allows the column to be cut to this width.
    pub const fn down_to(self, least: usize) -> Self {
        Self { least, ..self }
    }
}

/// The columns of a table with their widths.
pub struct Layout<const N: usize> {
    columns: [Column; N],
    /// The width of each column; `None` if it is left out.
    widths: [Option<usize>; N],
    /// Whether longer cells are cut to the width.
    cuts: bool,
    /// Whether a column is narrower than wanted or left out.
    pub is_cut: bool,
}

impl<const N: usize> Layout<N> {
    /// Fits columns with the `wanted` widths into `room`. Headings always get their width.
    pub fn new(columns: [Column; N], mut wanted: [usize; N], room: Option<usize>) -> Self {
        for (wanted, column) in wanted.iter_mut().zip(&columns) {
            *wanted = (*wanted).max(column.heading.width());
        }
        let Some(room) = room else {
            return Self { columns, widths: wanted.map(Some), cuts: false, is_cut: false };
        };
        let least = |index: usize| {
            let Column { heading, least, .. }: Column = columns[index];
            wanted[index].min(least.max(heading.width()))
        };
        let mut kept: Vec<usize> = (0..N).collect();
        kept.sort_by_key(|index| columns[*index].rank);
        let taken =
            |kept: &[usize]| kept.iter().map(|index| least(*index) + GAP).sum::<usize>().saturating_sub(GAP);
        while kept.len() > 1 && taken(&kept) > room {
            kept.pop();
        }
        // More important columns get the remaining room first.
        let mut spare = room.saturating_sub(taken(&kept));
        let mut widths = [None; N];
        for index in kept {
            let width = (least(index) + spare).min(wanted[index]);
            spare -= width - least(index);
            widths[index] = Some(width.min(room));
        }
        let is_cut = widths != wanted.map(Some);
        Self { columns, widths, cuts: true, is_cut }
    }

    /// Whether columns are left out for lack of room.
    pub fn leaves_out(&self) -> bool {
        self.widths.contains(&None)
    }

    pub fn headings(&self) -> String {
        self.line(self.columns.map(|column| column.heading))
    }

    /// Formats a line with its newline.
    pub fn line(&self, cells: [&str; N]) -> String {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(self.widths) {
            let Some(width) = width else { continue };
            let cell = printable(cell);
            let cell = if self.cuts { cut(&cell, width) } else { cell.into_owned() };
            line += &cell;
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// Formats `rows` under headings, each line with its newline. Also returns whether anything was cut.
pub fn table<const N: usize>(
    columns: [Column; N],
    rows: &[[String; N]],
    room: Option<usize>,
) -> (String, bool) {
    let mut wanted = [0; N];
    for row in rows {
        for (wanted, cell) in wanted.iter_mut().zip(row) {
            *wanted = (*wanted).max(printable(cell).width());
        }
    }
    let layout = Layout::new(columns, wanted, room);
    let rows = rows.iter().map(|row| layout.line(row.each_ref().map(String::as_str)));
    ([layout.headings()].into_iter().chain(rows).collect(), layout.is_cut)
}

/// Formats names with their values, without headings.
pub fn pairs(rows: &[(String, String)], room: Option<usize>) -> String {
    let name_width = rows.iter().map(|(name, _)| printable(name).width()).max().unwrap_or(0) + GAP;
    let room = room.and_then(|room| room.checked_sub(name_width)).filter(|room| *room >= NARROWEST);
    let mut text = String::new();
    for (name, value) in rows {
        let (name, value) = (printable(name), printable(value));
        let lines = room.map_or_else(|| vec![value.clone().into_owned()], |room| wrapped(&value, room));
        for (number, line) in lines.iter().enumerate() {
            let name = if number == 0 { &*name } else { "" };
            let blanks = " ".repeat(name_width.saturating_sub(name.width()));
            text += format!("{name}{blanks}{line}").trim_end();
            text.push('\n');
        }
    }
    text
}

/// A text in lines of at most this many columns, each with its newline.
pub fn paragraph(text: &str, room: Option<usize>) -> String {
    let text = printable(text);
    let lines =
        room.map_or_else(|| vec![text.clone().into_owned()], |room| wrapped(&text, room.max(NARROWEST)));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Cuts the text to this many columns; if it was longer, it ends with an ellipsis.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (start, _) = split(text, width.saturating_sub(1));
    format!("{start}…")
}

/// Wraps the text into lines of at most this many columns. Breaks it at spaces, and within a word only if no line has room
/// for it.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for (number, mut word) in text.split(' ').enumerate() {
        if number > 0 {
            if line.width() < width && (word.width() > width || line.width() + 1 + word.width() <= width) {
                line.push(' ');
            } else {
                lines.push(std::mem::take(&mut line));
            }
        }
        while line.width() + word.width() > width {
            let (start, rest) = split(word, width - line.width());
            line += start;
            lines.push(std::mem::take(&mut line));
            word = rest;
        }
        line += word;
    }
    lines.push(line);
    lines
}

/// Splits the text into the part that fits into this many columns, and the rest.
fn split(text: &str, width: usize) -> (&str, &str) {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += c.width().unwrap_or(0);
        taken > width
    });
    text.split_at(end.map_or(text.len(), |(at, _)| at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::new("PIN", 1).down_to(8), Column::new("REFERENCE", 3), Column::new("STATUS", 2).down_to(6)];

    fn rows(cells: [&str; 3]) -> [[String; 3]; 1] {
        [cells.map(str::to_owned)]
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let columns = [Column::new("NAME", 1), Column::new("N", 2)];
        let rows = [["a".into(), "1".into()], ["long".into(), String::new()]];
        assert_eq!(table(columns, &rows, None), ("NAME  N\na     1\nlong\n".into(), false));
        let wide = [["日本".into(), "1".into()], ["e\u{301}".into(), "2".into()]];
        assert_eq!(table(columns, &wide, None).0, "NAME  N\n日本  1\ne\u{301}     2\n");
    }

    #[test]
    fn a_narrow_table_cuts_values_and_then_drops_the_least_important_columns() {
        let rows = rows(["PIN-4567", "reference", "DELIVERED"]);
        let table = |room| table(COLUMNS, &rows, Some(room));
        assert_eq!(table(30).0, "PIN       REFERENCE  STATUS\nPIN-4567  reference  DELIVERED\n");
        assert_eq!(table(28), ("PIN       REFERENCE  STATUS\nPIN-4567  reference  DELIVE…\n".into(), true));
        assert_eq!(table(26), ("PIN       STATUS\nPIN-4567  DELIVERED\n".into(), true));
        assert_eq!(table(10), ("PIN\nPIN-4567\n".into(), true));
        assert_eq!(table(5), ("PIN\nPIN-…\n".into(), true));
        assert!(!table(30).1);
    }

    #[test]
    fn a_long_value_beside_its_name_is_wrapped_without_losing_anything() {
        let rows =
            [("error".into(), "the endpoint answered 503 for a while".into()), ("n".into(), "1".into())];
        let expected = "error  the endpoint\n       answered 503 for a\n       while\nn      1\n";
        assert_eq!(pairs(&rows, Some(27)), expected);
        let record = [("record".into(), "x".repeat(50))];
        assert_eq!(
            pairs(&record, Some(38)),
            format!("record  {0}\n        {1}\n", "x".repeat(30), "x".repeat(20))
        );
        assert_eq!(pairs(&record, None).lines().count(), 1);
        // A word that is too long for any line starts on the current line, because it must be broken anyway.
        assert_eq!(
            wrapped(&format!("a {}", "x".repeat(25)), 20),
            [format!("a {}", "x".repeat(18)), "x".repeat(7)]
        );
    }

    #[test]
    fn control_characters_of_a_reference_are_shown_as_escapes() {
        let columns = [Column::new("REFERENCE", 1), Column::new("N", 2)];
        let rows = [["a\x1b[31m\r\nb".into(), "1".into()], ["\u{202e}\u{9b}2J".into(), "2".into()]];
        assert_eq!(
            table(columns, &rows, None).0,
            "REFERENCE         N\na\\u{1b}[31m\\r\\nb  1\n\\u{202e}\\u{9b}2J  2\n"
        );
        assert_eq!(pairs(&[("x\x07".into(), "é".into())], None), "x\\u{7}  é\n");
    }

    proptest! {
        #[test]
        fn no_line_of_a_table_is_wider_than_its_limit(cells in ["\\PC{0,40}", "\\PC{0,40}", "\\PC{0,40}"], room in 2_usize..120) {
            let rows = [cells];
            let (text, _) = table(COLUMNS, &rows, Some(room));
            for line in text.lines() {
                prop_assert!(line.width() <= room, "{line:?} is {} wide", line.width());
            }
            let [name, value, _] = &rows[0];
            let name: String = name.chars().take(5).collect();
            for line in pairs(&[(name, value.clone())], Some(room.max(40))).lines() {
                prop_assert!(line.width() <= room.max(40), "{line:?}");
            }
        }
    }
}
