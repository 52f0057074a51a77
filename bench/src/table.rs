//! The results for people: lines on the terminal, and Markdown.

use std::fmt::Write as _;

use crate::{
    report::Report,
    sample::{Cell, Column, Row, Spread},
    targets::Verdict,
};

/// One row on the terminal.
pub(crate) fn line(row: &Row) -> String {
    let mut line = format!("{} [{}]", row.title, row.unit.name());
    for column in Column::ALL {
        match row.cells.get(column.0) {
            Some(Cell::Measured(spread)) => {
                let _ = write!(line, "  {} {}", column.0, number(spread.median));
            }
            Some(Cell::Failed { .. }) => {
                let _ = write!(line, "  {} failed", column.0);
            }
            None => {}
        }
    }
    line
}

/// The whole report as Markdown.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Measured beside what people use\n\n{}\n\nEach cell is the median, and in brackets where four fifths of the \
         measurements lie. An empty cell was not measured; why a peer is missing is said below the tables.\n",
        report.machine.describe()
    );
    for section in &report.sections {
        let _ = write!(text, "\n## {}\n\n", section.title);
        let used: Vec<Column> = Column::ALL
            .into_iter()
            .filter(|column| {
                let has = |row: &Row| matches!(row.cells.get(column.0), Some(Cell::Measured(_)));
                section.rows.iter().any(has)
            })
            .collect();
        let heads: Vec<&str> = used.iter().map(|column| column.0).collect();
        let _ = writeln!(text, "| | | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---:|".repeat(heads.len()));
        for row in &section.rows {
            let cells: Vec<String> = used.iter().map(|column| cell(row, *column)).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                row.title,
                row.unit.name(),
                cells.join(" | ")
            );
        }
    }
    let _ = write!(
        text,
        "\n## Targets\n\n| | target | measured | |\n|---|---|---:|---|\n"
    );
    for Verdict {
        target,
        bound,
        measured,
        reached,
    } in crate::targets::judge(report)
    {
        let (measured, word) = match (measured, reached) {
            (None, _) => (String::new(), "not measured"),
            (Some(measured), true) => (format!("{measured:.2}"), "reached"),
            (Some(measured), false) => (format!("{measured:.2}"), "**missed**"),
        };
        let _ = writeln!(text, "| {target} | {bound} | {measured} | {word} |");
    }
    if !report.missing.is_empty() {
        text.push_str("\n## Missing\n\n");
        for (who, why) in &report.missing {
            let _ = writeln!(text, "- {who}: {why}");
        }
    }
    text
}

fn cell(row: &Row, column: Column) -> String {
    match row.cells.get(column.0) {
        Some(Cell::Measured(spread)) if spread.samples == 1 => number(spread.median),
        Some(Cell::Measured(Spread {
            median, p10, p90, ..
        })) => format!("{} ({}–{})", number(*median), number(*p10), number(*p90)),
        Some(Cell::Failed { .. }) | None => String::new(),
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
