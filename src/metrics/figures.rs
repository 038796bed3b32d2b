//! The figures of one moment, as families of series.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// The label of the series that all those share which have none of their own.
pub const OTHER: &str = "other";

/// All figures that a tool has published at once.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    families: Vec<Family>,
}

/// One metric: its name, and a value for each set of labels.
#[derive(Clone, Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    /// The last part of the name; empty where there is none.
    unit: &'static str,
    kind: Kind,
    series: Vec<(Labels, Value)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Never less than before.
    Counter,
    Gauge,
    /// Labels that say something; the value is 1.
    Info,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Whole(u64),
    Real(f64),
}

impl Figures {
    /// Something that is counted from the start and never gets less: `netbpf_TOOL_NAME_UNIT_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> &mut Family {
        self.family(Kind::Counter, name, unit, help)
    }

    /// Something that goes up and down: `netbpf_TOOL_NAME_UNIT`.
    pub fn gauge(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> &mut Family {
        self.family(Kind::Gauge, name, unit, help)
    }

    /// Something that labels say: `netbpf_TOOL_NAME_info`.
    pub fn info(&mut self, name: &'static str, help: &'static str) -> &mut Family {
        self.family(Kind::Info, name, "", help)
    }

    /// What every tool counts that prints reports.
    pub fn skipped_reports(&mut self, count: u64) {
        let help = "Reports that were left out because nobody took the ones before.";
        self.counter("skipped", "reports", help).is(count);
    }

    fn family(
        &mut self,
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
    ) -> &mut Family {
        self.families.push(Family {
            name,
            help,
            unit,
            kind,
            series: Vec::new(),
        });
        let last = self.families.len() - 1;
        &mut self.families[last]
    }

    /// For the tool whose names begin with this prefix.
    pub(super) fn encode(&self, prefix: &str, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = self.families.iter();
        families.try_for_each(|family| family.encode(prefix, encoder))
    }
}

impl Family {
    /// Its only value.
    pub fn is(&mut self, value: u64) {
        self.series.push((Labels::new(), Value::Whole(value)));
    }

    /// Its only value.
    pub fn measures(&mut self, value: f64) {
        self.series.push((Labels::new(), Value::Real(value)));
    }

    /// The value of what these labels name.
    pub fn of<const N: usize>(
        &mut self,
        labels: [(&'static str, &str); N],
        value: u64,
    ) -> &mut Family {
        self.series.push((owned(labels), Value::Whole(value)));
        self
    }

    /// The value of what these labels name.
    pub fn measure_of<const N: usize>(&mut self, labels: [(&'static str, &str); N], value: f64) {
        self.series.push((owned(labels), Value::Real(value)));
    }

    fn encode(&self, prefix: &str, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let name = format!("{prefix}_{}", self.name);
        // A unit is the last part of the name; where it is all of it, it has an underscore already.
        let name = name.trim_end_matches('_');
        let unit = (!self.unit.is_empty()).then(|| Unit::Other(self.unit.to_owned()));
        let kind = match self.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
        };
        let mut metric = encoder.encode_descriptor(name, self.help, unit.as_ref(), kind)?;
        for (labels, value) in &self.series {
            if self.kind == Kind::Info {
                metric.encode_info(labels)?;
            } else if labels.is_empty() {
                self.encode_value(&mut metric, *value)?;
            } else {
                self.encode_value(&mut metric.encode_family(labels)?, *value)?;
            }
        }
        Ok(())
    }

    fn encode_value(&self, metric: &mut MetricEncoder<'_>, value: Value) -> fmt::Result {
        type NoLabels = Vec<(&'static str, String)>;
        match (self.kind, value) {
            (Kind::Counter, Value::Whole(value)) => {
                metric.encode_counter::<NoLabels, u64, u64>(&value, None)
            }
            (Kind::Counter, Value::Real(value)) => {
                metric.encode_counter::<NoLabels, f64, f64>(&value, None)
            }
            (_, Value::Whole(value)) => metric.encode_gauge(&value),
            (_, Value::Real(value)) => metric.encode_gauge(&value),
        }
    }
}

fn owned<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    let owned = labels.map(|(key, value)| (key, value.to_owned()));
    owned.into()
}
