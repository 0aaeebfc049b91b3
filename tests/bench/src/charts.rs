//! Charts of the measurements: small SVG images without a background that follow the reader's
//! colour scheme. They are drawn here, without another program.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::measurement::{Measurement, Report};

/// Chart with horizontal bars of measurements in one unit.
struct Chart {
    file: &'static str,
    title: &'static str,
    section: &'static str,
    /// Selects measurements of the section by a part of their names.
    shows: &'static [&'static str],
}

const CHARTS: &[Chart] = &[
    Chart {
        file: "births.svg",
        title: "From the last start of a founder to a control plane",
        section: "births",
        shows: &["last start to"],
    },
    Chart {
        file: "writes.svg",
        title: "One committed write of 256 bytes, three nodes",
        section: "writes",
        shows: &["through the leader", "through the follower"],
    },
    Chart {
        file: "failover.svg",
        title: "From the kill of the leader to the next committed write",
        section: "failover",
        shows: &["leader killed"],
    },
    Chart {
        file: "memory.svg",
        title: "Resident memory of a daemon at rest",
        section: "idle",
        shows: &["resident memory"],
    },
    Chart {
        file: "processor.svg",
        title: "Processor time of a daemon at rest",
        section: "idle",
        shows: &["processor time"],
    },
    Chart {
        file: "members.svg",
        title: "Forty members: all seen, and one killed noticed by all",
        section: "members",
        shows: &["seen by all", "noticed by all"],
    },
    Chart {
        file: "growth-seen.svg",
        title: "From the last start to all nodes seen by all, on one machine",
        section: "growth",
        shows: &["seen by all"],
    },
    Chart {
        file: "growth-memory.svg",
        title: "Resident memory of musterd by the number of nodes",
        section: "growth",
        shows: &["resident memory"],
    },
    Chart {
        file: "growth-traffic.svg",
        title: "Sent by one host at rest by the number of nodes",
        section: "growth",
        shows: &["sent at rest"],
    },
];

/// Draws a chart for every group of measurements in the report.
pub fn draw(report: &Report, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for chart in CHARTS {
        let shown = |measurement: &&Measurement| {
            measurement.section == chart.section
                && chart.shows.iter().any(|part| measurement.what.contains(part))
        };
        // The first one's unit is the chart's: rates and times do not share an axis.
        let measurements: Vec<_> = report.measurements.iter().filter(shown).collect();
        let Some(unit) = measurements.first().map(|measurement| measurement.unit) else { continue };
        let measurements: Vec<_> =
            measurements.into_iter().filter(|measurement| measurement.unit == unit).collect();
        let path = directory.join(chart.file);
        std::fs::write(&path, picture(chart.title, unit, &measurements))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

const WIDTH: f64 = 820.0;
/// Start of the bars, and length of the longest.
const LEFT: f64 = 210.0;
const LONGEST: f64 = 480.0;
const ROW: f64 = 22.0;
const TOP: f64 = 54.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
.title{font-size:15px;font-weight:600}.small{font-size:12px;fill:#59636e}\
.ours{fill:#2f6feb}.theirs{fill:#a0a8b4}.tail{stroke:#59636e;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}\
.ours{fill:#6ea8fe}.theirs{fill:#6e7681}.tail{stroke:#9198a1}}";

fn picture(title: &str, unit: &str, measurements: &[&Measurement]) -> String {
    let tail = measurements
        .iter()
        .filter_map(|measurement| tail_of(measurement))
        .map(|(name, _)| name)
        .next();
    let how = tail.map_or(unit.to_owned(), |name| format!("{unit}; bar: p50, line: up to {name}"));
    let tails = measurements
        .iter()
        .map(|measurement| tail_of(measurement).map_or(measurement.main(), |(_, at)| at));
    let most = tails.fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    let (mut y, mut what) = (TOP, "");
    for measurement in measurements {
        if measurement.what != what {
            what = &measurement.what;
            y += 6.0;
            text(&mut body, (8.0, y + 14.0), "small", &format!("{what} (n={})", measurement.n));
            y += ROW;
        }
        row(&mut body, y, measurement, LONGEST / most);
        y += ROW;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n\
         <text x=\"8\" y=\"22\" class=\"title\">{title}</text>\n\
         <text x=\"8\" y=\"42\" class=\"small\">{how}</text>\n{body}</svg>\n",
        title = escape(title),
        how = escape(&how),
        height = y + 10.0,
    )
}

/// Returns the name and value of the percentile next to the median.
fn tail_of(measurement: &Measurement) -> Option<(&str, f64)> {
    let found = measurement.values.iter().find(|(name, _)| name.starts_with("p9"))?;
    Some((found.0, *found.1))
}

fn row(body: &mut String, y: f64, measurement: &Measurement, scale: f64) {
    let length = (measurement.main() * scale).max(1.0);
    let class = if measurement.subject.starts_with("musterd") { "ours" } else { "theirs" };
    text(body, (24.0, y + 14.0), "", &measurement.subject);
    writeln!(
        body,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"14\" rx=\"2\" \
         class=\"{class}\"/>",
        y + 3.0
    )
    .expect("writing to a string cannot fail");
    let mut end = LEFT + length;
    if let Some((_, tail)) = tail_of(measurement) {
        let to = LEFT + tail * scale;
        writeln!(
            body,
            "<line x1=\"{end:.1}\" y1=\"{at:.1}\" x2=\"{to:.1}\" y2=\"{at:.1}\" class=\"tail\"/>",
            at = y + 10.0
        )
        .expect("writing to a string cannot fail");
        end = end.max(to);
    }
    text(body, (end + 6.0, y + 14.0), "", &number(measurement.main()));
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn text(body: &mut String, (x, y): (f64, f64), class: &str, what: &str) {
    let what = escape(what);
    writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{what}</text>")
        .expect("writing to a string cannot fail");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Samples;

    #[test]
    fn a_picture_holds_every_bar_within_its_width() {
        let mut samples = Samples::default();
        for value in [1.0, 2.0, 40.0] {
            samples.push(value);
        }
        let ours = Measurement::spread(("a < b", "musterd"), "ms", &samples, 99);
        let theirs = Measurement::one(("a < b", "etcd"), "ms", 4.0, 1);
        let drawn = picture("R&D", "ms", &[&ours, &theirs]);
        assert_eq!(drawn.matches("<rect").count(), 2);
        assert!(drawn.contains("R&amp;D") && drawn.contains("a &lt; b"), "{drawn}");
        let end = format!("x2=\"{:.1}\"", LEFT + LONGEST);
        assert!(drawn.contains(&end), "the tail is the longest: {drawn}");
    }
}
