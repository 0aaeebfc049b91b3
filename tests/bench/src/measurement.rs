//! Measurements: subject, unit, number of samples, and target.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::machine::Machine;

/// Several samples of one quantity.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub fn push_seconds(&mut self, took: Duration) {
        self.push(took.as_secs_f64());
    }

    pub fn push_millis(&mut self, took: Duration) {
        self.push(took.as_secs_f64() * 1000.0);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn mean(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        let count = self.0.len().max(1) as f64;
        self.0.iter().sum::<f64>() / count
    }

    /// Returns the smallest sample that is not below `percent` of all (nearest rank).
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    fn values(&self, tail: usize) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("p50".to_owned(), self.percentile(50)),
            (format!("p{tail}"), self.percentile(tail)),
            ("min".to_owned(), self.percentile(0)),
            ("max".to_owned(), self.percentile(100)),
        ])
    }
}

/// Target of a measurement, and whether it is met.
#[derive(Debug, Clone, Serialize)]
pub struct Target {
    pub text: String,
    pub met: bool,
}

/// Measured quantity.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    pub section: &'static str,
    /// Measured quantity, with its conditions.
    pub what: String,
    /// Measured program: `musterd`, `etcd`, `serf`.
    pub subject: String,
    pub unit: &'static str,
    /// Number of samples.
    pub n: usize,
    /// `p50`, `p95`, … or the one `value`.
    pub values: BTreeMap<String, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Measurement {
    /// Makes a measurement of the median and the given percentile.
    pub fn spread(
        (what, subject): (impl Into<String>, &str),
        unit: &'static str,
        samples: &Samples,
        tail: usize,
    ) -> Self {
        let (n, values) = (samples.len(), samples.values(tail));
        Self::new((what.into(), subject), unit, n, values)
    }

    /// Makes a measurement of one number that summarises `n` samples.
    pub fn one(
        (what, subject): (impl Into<String>, &str),
        unit: &'static str,
        value: f64,
        n: usize,
    ) -> Self {
        Self::new((what.into(), subject), unit, n, BTreeMap::from([("value".to_owned(), value)]))
    }

    fn new(
        (what, subject): (String, &str),
        unit: &'static str,
        n: usize,
        values: BTreeMap<String, f64>,
    ) -> Self {
        let subject = subject.to_owned();
        Self { section: "", what, subject, unit, n, values, target: None, note: None }
    }

    /// Returns the median, or the one value.
    pub fn main(&self) -> f64 {
        let found = self.values.get("p50").or_else(|| self.values.get("value"));
        found.copied().unwrap_or(f64::NAN)
    }

    /// Sets a target: at most this value.
    #[must_use]
    pub fn at_most(self, limit: f64, text: impl Into<String>) -> Self {
        let met = self.main() <= limit;
        Self { target: Some(Target { text: text.into(), met }), ..self }
    }

    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// All measurements of a run, and a description of the machine.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub quick: bool,
    pub measurements: Vec<Measurement>,
    /// Sections that failed, with their errors.
    pub failed: BTreeMap<&'static str, String>,
    /// Output of other programs, unchanged.
    pub others: BTreeMap<&'static str, Value>,
    #[serde(skip)]
    section: &'static str,
}

impl Report {
    pub fn new(machine: Machine, quick: bool) -> Self {
        let (measurements, failed, others) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { machine, quick, measurements, failed, others, section: "" }
    }

    pub(super) fn begin(&mut self, section: &'static str) {
        self.section = section;
    }

    pub(super) fn fail(&mut self, section: &'static str, why: String) {
        self.failed.insert(section, why);
    }

    pub fn add(&mut self, measurement: Measurement) {
        self.measurements.push(Measurement { section: self.section, ..measurement });
    }

    /// Returns the measurement of that name, if its section has run.
    pub fn find(&self, section: &str, what: &str, subject: &str) -> Option<&Measurement> {
        self.measurements
            .iter()
            .find(|f| f.section == section && f.what == what && f.subject == subject)
    }

    /// Formats the report as a table for people.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        let (mut section, mut what) = ("", "");
        for measurement in &self.measurements {
            if measurement.section != section {
                section = measurement.section;
                write!(text, "\n== {section}\n").expect("writing to a string cannot fail");
            }
            if measurement.what != what {
                what = &measurement.what;
                writeln!(text, "{what}").expect("writing to a string cannot fail");
            }
            writeln!(text, "{}", row(measurement)).expect("writing to a string cannot fail");
        }
        for (section, why) in &self.failed {
            write!(text, "\n== {section} FAILED: {why}\n")
                .expect("writing to a string cannot fail");
        }
        for (name, value) in &self.others {
            write!(text, "\n== {name}\n{value:#}\n").expect("writing to a string cannot fail");
        }
        text
    }
}

fn row(measurement: &Measurement) -> String {
    let Measurement { subject, unit, n, values, target, note, .. } = measurement;
    let order = |name: &str| match name {
        "p50" | "value" => 0,
        "min" => 8,
        "max" => 9,
        _ => 1,
    };
    let mut named: Vec<_> = values.iter().collect();
    named.sort_by_key(|(name, _)| order(name));
    let numbers: Vec<_> = named
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "value" => short(*value),
            name => format!("{name} {}", short(*value)),
        })
        .collect();
    let mut text = format!("  {subject:<26} {} {unit}  (n={n})", numbers.join("  "));
    if let Some(Target { text: target, met }) = target {
        let met = if *met { "met" } else { "NOT met" };
        write!(text, "  target: {target}: {met}").expect("writing to a string cannot fail");
    }
    if let Some(note) = note {
        write!(text, "\n  {:<26} {note}", "").expect("writing to a string cannot fail");
    }
    text
}

/// Formats a number with three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut samples = Samples::default();
        for value in (1..=10).rev() {
            samples.push(f64::from(value));
        }
        let of = |percent| samples.percentile(percent);
        let found = [of(0), of(50), of(95), of(100)].map(short);
        assert_eq!(found, [1.0, 5.0, 10.0, 10.0].map(short));
    }

    #[test]
    fn an_aim_is_about_the_median() {
        let mut samples = Samples::default();
        for value in [1.0, 1.0, 9.0] {
            samples.push(value);
        }
        let measurement = Measurement::spread(("a wait", "musterd"), "s", &samples, 95);
        assert!(measurement.clone().at_most(1.0, "1 s").target.unwrap().met);
        assert!(!measurement.at_most(0.9, "0.9 s").target.unwrap().met);
    }
}
