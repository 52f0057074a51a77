//! How cost grows, as SVG: one line a column, both axes logarithmic. Small enough to need no crate for it.

use std::fmt::Write as _;

use crate::{
    report::Report,
    sample::{Column, Row},
};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 320.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 470.0;

const COLOURS: [&str; 6] = [
    "#1b6ca8", "#444444", "#c0392b", "#2e8b57", "#8e44ad", "#d68910",
];

/// A picture of rows whose ids are a prefix and a number.
struct Plot {
    name: &'static str,
    title: &'static str,
    prefix: &'static str,
    suffix: &'static str,
    across: &'static str,
}

const PLOTS: [Plot; 5] = [
    Plot {
        name: "read",
        title: "Read",
        prefix: "read-",
        suffix: "m",
        across: "MiB of the file",
    },
    Plot {
        name: "write",
        title: "Write",
        prefix: "write-",
        suffix: "m",
        across: "MiB of the file",
    },
    Plot {
        name: "list",
        title: "List with attributes",
        prefix: "list-",
        suffix: "",
        across: "entries",
    },
    Plot {
        name: "clients",
        title: "Calls by many clients",
        prefix: "calls-",
        suffix: "",
        across: "clients",
    },
    Plot {
        name: "users",
        title: "Calls by many users",
        prefix: "calls-users-",
        suffix: "",
        across: "users",
    },
];

/// Those that have at least two points.
pub(crate) fn all(report: &Report) -> Vec<(&'static str, String)> {
    let rows: Vec<&Row> = report
        .sections
        .iter()
        .flat_map(|section| &section.rows)
        .collect();
    PLOTS
        .iter()
        .filter_map(|plot| Some((plot.name, draw(plot, &rows)?)))
        .collect()
}

fn draw(plot: &Plot, rows: &[&Row]) -> Option<String> {
    let number = |row: &Row| -> Option<f64> {
        row.id
            .strip_prefix(plot.prefix)?
            .strip_suffix(plot.suffix)?
            .parse()
            .ok()
    };
    let rows: Vec<(f64, &Row)> = rows
        .iter()
        .filter_map(|row| Some((number(row)?, *row)))
        .collect();
    let (_, first) = rows.first().filter(|_| rows.len() > 1)?;
    let lines: Vec<(Column, Vec<(f64, f64)>)> = Column::ALL
        .into_iter()
        .map(|column| {
            let points = rows
                .iter()
                .filter_map(|(x, row)| Some((*x, row.median(column.0)?)));
            (column, points.collect())
        })
        .filter(|(_, points): &(_, Vec<_>)| !points.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|(_, points)| points);
    let across = range(points().map(|(x, _)| *x));
    let up = range(points().map(|(_, y)| *y));
    let x = |value: f64| LEFT + (RIGHT - LEFT) * place(value, across);
    let y = |value: f64| BOTTOM - (BOTTOM - TOP) * place(value, up);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}, {}</text>\n",
        plot.title,
        first.unit.name()
    );
    for value in ticks(across) {
        let at = x(value);
        let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{BOTTOM}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
            BOTTOM + 16.0
        );
    }
    for value in ticks(up) {
        let at = y(value);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{RIGHT}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        BOTTOM + 34.0,
        plot.across
    );
    for (at, (column, points)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let path: Vec<String> = points
            .iter()
            .map(|(px, py)| format!("{:.1} {:.1}", x(*px), y(*py)))
            .collect();
        let _ = writeln!(
            svg,
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        );
        for (px, py) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*px),
                y(*py)
            );
        }
        let line = TOP + 18.0 * at as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{line:.1}\" fill=\"{colour}\">{}</text>",
            RIGHT + 12.0,
            column.0
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Decades around all values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::MAX, f64::MIN_POSITIVE);
    for value in values.filter(|value| *value > 0.0) {
        low = low.min(value.log10().floor());
        high = high.max(value.log10().ceil());
    }
    (low, high.max(low + 1.0))
}

fn place(value: f64, (low, high): (f64, f64)) -> f64 {
    (value.max(f64::MIN_POSITIVE).log10() - low) / (high - low)
}

fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    (low as i32..=high as i32)
        .map(|power| 10_f64.powi(power))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{measures::many::single, report::Section, sample::Unit};

    #[test]
    fn a_plot_needs_two_points_and_knows_its_rows() {
        let row = |id: &str, value| single(id, id, Unit::Milliseconds, value);
        let section = |rows| Section {
            name: "lists".into(),
            title: "Lists".into(),
            rows,
        };
        let mut report = Report {
            sections: vec![section(vec![row("list-10", 3.0)])],
            ..Report::default()
        };
        assert!(all(&report).is_empty());
        report.sections = vec![section(vec![
            row("list-10", 3.0),
            row("list-1000", 250.0),
            row("read-4k", 1.0),
        ])];
        let plots = all(&report);
        assert_eq!(plots.len(), 1);
        assert_eq!(plots[0].0, "list");
        assert_eq!(plots[0].1.matches("<circle").count(), 2);
    }
}
