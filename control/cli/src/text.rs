//! How tables and numbers look.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use std::fmt::Display;

/// A table without lines: headings, two spaces between columns.
pub struct Listing {
    table: Table,
    rows: usize,
}

impl Listing {
    /// A table with these column headings.
    pub fn new(headings: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(headings.iter().copied());
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, rows: 0 }
    }

    /// Numbers of column `index` stand under each other.
    pub fn right(mut self, indices: &[usize]) -> Self {
        for index in indices {
            if let Some(column) = self.table.column_mut(*index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// One more row.
    pub fn row<C: Display>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.table
            .add_row(cells.into_iter().map(|c| Cell::new(c.to_string())));
        self.rows += 1;
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The lines, indented.
    pub fn lines(&self) -> String {
        let lines = self
            .table
            .lines()
            .map(|line| format!("  {}\n", line.trim_end()));
        lines.collect()
    }
}

/// A page of sections.
pub struct Page {
    text: String,
    styled: bool,
}

impl Page {
    /// An empty page; `styled` for a terminal.
    pub fn new(styled: bool) -> Self {
        Self {
            text: String::new(),
            styled,
        }
    }

    /// A heading with a table below; an empty table leaves nothing.
    pub fn table(&mut self, heading: &str, listing: &Listing) {
        if !listing.is_empty() {
            self.section(heading, &listing.lines());
        }
    }

    /// A heading with a line below for each item; no items leave nothing.
    pub fn items(&mut self, heading: &str, items: &[String]) {
        if !items.is_empty() {
            let lines = items.iter().map(|item| format!("  - {item}\n"));
            self.section(heading, &lines.collect::<String>());
        }
    }

    /// Names and values, without a heading.
    pub fn facts(&mut self, facts: &[(&str, String)]) {
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in facts {
            let name = self.bold(&format!("{name:width$}"));
            self.text.push_str(&format!("{name}  {value}\n"));
        }
    }

    fn section(&mut self, heading: &str, body: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.bold(heading);
        self.text.push_str(&format!("{heading}\n{body}"));
    }

    fn bold(&self, text: &str) -> String {
        if self.styled {
            format!("\u{1b}[1m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// The page's text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit: `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = count as f64;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

/// A time span in its two largest units: `2 h 5 min`.
pub fn span(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A moment as RFC 3339 writes it: `2026-11-21T14:23:45.123Z`.
pub fn utc(since_epoch_ns: u64) -> String {
    let (seconds, ms) = (
        since_epoch_ns / 1_000_000_000,
        since_epoch_ns / 1_000_000 % 1_000,
    );
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970-01-01, of the Gregorian calendar. Counted in eras of 400 years that begin
/// with March, so that the leap day is a year's last.
fn date(day: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, month + 3);
    match month > 12 {
        true => (year + 1, month - 12, day),
        false => (year, month, day),
    }
}

/// The items with commas between, or a dash for none.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items = items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(", ")
    }
}

/// The value, or a dash.
pub fn or_dash<T: Display>(value: Option<T>) -> String {
    list(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(7_500), "2 h 5 min");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(list(["a", "b"]), "a, b");
        assert_eq!(or_dash(None::<u8>), "-");
    }

    #[test]
    fn moments_read_as_everywhere() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(seconds * 1_000_000_000), text);
        }
        assert_eq!(utc(1_999_999), "1970-01-01T00:00:00.001Z");
    }

    #[test]
    fn pages_leave_empty_sections_out() {
        let mut page = Page::new(false);
        page.facts(&[("a", "1".into()), ("long", "2".into())]);
        page.table("EMPTY", &Listing::new(&["X"]));
        page.items("NONE", &[]);
        let mut listing = Listing::new(&["NAME", "N"]).right(&[1]);
        listing.row(["x", "10"]);
        listing.row(["y", "9"]);
        page.table("SOME", &listing);
        assert_eq!(
            page.finish(),
            "a     1\nlong  2\n\nSOME\n  NAME   N\n  x     10\n  y      9\n"
        );
    }
}
