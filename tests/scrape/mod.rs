//! Metrics as somebody gets them who scrapes, and as docs/metrics.md lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use testbed::step;

/// A metric but for its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub kind: String,
    pub unit: String,
    pub labels: BTreeSet<String>,
    pub meaning: String,
}

/// By name, as it stands before values.
pub type Descriptions = BTreeMap<String, Description>;

/// What is answered there to who accepts this.
pub fn get(address: &str, accept: &str) -> (String, String) {
    let url = format!("http://{address}/metrics");
    let mut response = step(&url, ureq::get(&url).header("Accept", accept).call());
    let kind = response.headers().get("Content-Type");
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().to_owned();
    (kind, step(&url, response.body_mut().read_to_string()))
}

/// What a scrape says of its metrics. It panics where the text breaks a rule of OpenMetrics.
pub fn described(text: &str) -> Descriptions {
    let mut all = Descriptions::new();
    let mut family = String::new();
    let mut description = Description::default();
    let body = text.strip_suffix("# EOF\n");
    let body = body.unwrap_or_else(|| panic!("it does not end with EOF: {text}"));
    for line in body.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let (series, value) = step(line, line.rsplit_once(' ').ok_or("no value"));
            step(line, value.parse::<f64>());
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let named = all.get_mut(name);
            let named = named.unwrap_or_else(|| panic!("{line} is of no family"));
            assert!(
                name.starts_with(&family),
                "{line} is among those of {family}"
            );
            // No value in these tests has an equals sign or a comma in it.
            let labels = labels.trim_end_matches('}').split(',');
            let labels = labels.filter_map(|label| label.split_once('='));
            named
                .labels
                .extend(labels.map(|(label, _)| label.to_owned()));
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (what, name, rest) = (word(), word(), word());
        if what == "HELP" {
            family.clone_from(&name);
            description = Description {
                meaning: rest,
                ..Description::default()
            };
            continue;
        }
        assert_eq!(name, family, "{line}");
        let full = |kind: &str| match kind {
            "counter" => format!("{name}_total"),
            "info" => format!("{name}_info"),
            _ => name.clone(),
        };
        if what == "TYPE" {
            description.kind = rest;
            let full = full(&description.kind);
            let double = all.insert(full, description.clone());
            assert_eq!(double, None, "{name} is there twice");
        } else {
            assert_eq!(what, "UNIT", "{line}");
            assert!(name.ends_with(&format!("_{rest}")), "{line}");
            let full = full(&description.kind);
            step(line, all.get_mut(&full).ok_or("no TYPE before")).unit = rest;
        }
    }
    all
}

/// What docs/metrics.md says of the metrics of a tool, those of every tool too.
pub fn documented(tool: &str) -> Descriptions {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let document = step(path, fs::read_to_string(path));
    let mut all = Descriptions::new();
    for section in ["Every tool", tool] {
        let heading = format!("\n## {section}\n");
        let (_, text) = step(&heading, document.split_once(&heading).ok_or("not there"));
        let text = text.split("\n## ").next().unwrap_or_default();
        for row in text.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [name, kind, unit, labels, meaning] = cells[..] else {
                panic!("a row has five cells: {row}");
            };
            let labels = labels.split(' ').filter(|label| !label.is_empty());
            let description = Description {
                kind: kind.to_owned(),
                unit: unit.to_owned(),
                labels: labels
                    .map(|label| label.trim_matches('`').to_owned())
                    .collect(),
                meaning: meaning.to_owned(),
            };
            let name = name.trim_matches('`').replace("TOOL", tool);
            let double = all.insert(name, description);
            assert_eq!(double, None, "twice: {row}");
        }
    }
    all
}

/// The value of a series, written out in full.
pub fn value(text: &str, series: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = lines.find(|(name, _)| *name == series)?;
    Some(step(series, value.parse()))
}
