//! Tables for people; the machine-readable form is the same structures as JSON.

use std::fmt;

use serde::Serialize;

use crate::Outcome;

/// A report, for programs and for people.
pub(crate) struct Told {
    /// Everything, every round.
    pub(crate) json: String,
    /// Tables.
    pub(crate) text: String,
}

impl Told {
    pub(crate) fn of(report: &impl Serialize, text: String) -> Outcome<Self> {
        let json = serde_json::to_string_pretty(report)?;
        Ok(Self { json, text: text.trim_end().to_owned() })
    }
}

/// Something the project promised to show.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// What was promised.
    pub(crate) what: String,
    /// At least or at most this.
    pub(crate) wanted: f64,
    /// What was measured.
    pub(crate) measured: f64,
    /// Whether it holds.
    pub(crate) met: bool,
}

impl Goal {
    /// `measured` must reach `wanted`.
    pub(crate) fn at_least(what: &str, wanted: f64, measured: f64) -> Self {
        Self { what: format!("{what}, at least"), wanted, measured, met: measured >= wanted }
    }

    /// `measured` must not exceed `wanted`.
    pub(crate) fn at_most(what: &str, wanted: f64, measured: f64) -> Self {
        Self { what: format!("{what}, at most"), wanted, measured, met: measured <= wanted }
    }
}

/// The goals as a table after an empty line; nothing where there is none.
pub(crate) fn goals(goals: &[Goal]) -> String {
    if goals.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["goal", "wanted", "measured", ""]);
    for goal in goals {
        let verdict = if goal.met { "met" } else { "MISSED" };
        table.row([
            goal.what.clone(),
            figure(goal.wanted),
            figure(goal.measured),
            verdict.to_owned(),
        ]);
    }
    format!("\n{table}")
}

/// Columns under a head: the first to the left, the others to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&title| title.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                line += &match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("  {cell:>width$}"),
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number as a person reads it: three digits that matter, thousands apart.
pub(crate) fn figure(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => thousands(number.round() as i64),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// A ratio, or a dash where there is none.
pub(crate) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn thousands(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_three_digits() {
        let shown = [0.0, 1.256, 12.34, 99.96, 174_120.4, 1_600_000.0, -1234.0].map(figure);
        assert_eq!(shown, ["0.00", "1.26", "12.3", "100.0", "174,120", "1,600,000", "-1,234"]);
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let mut table = Table::new(&["who", "a second"]);
        table.row(["zmq_proxy".to_owned(), "174,120".to_owned()]);
        table.row(["µ".to_owned(), "1".to_owned()]);
        let lines = "who        a second\nzmq_proxy   174,120\nµ                 1\n";
        assert_eq!(table.to_string(), lines);
    }

    #[test]
    fn a_goal_is_met_at_its_border() {
        assert!(Goal::at_least("rate", 4.0, 4.0).met);
        assert!(!Goal::at_least("rate", 4.0, 3.99).met);
        assert!(Goal::at_most("latency", 1.25, 1.25).met);
        assert!(!Goal::at_most("latency", 1.25, 1.26).met);
    }
}
