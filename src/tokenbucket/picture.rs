//! The report as a picture for readers: 80 columns, and short enough for a small terminal.

use std::fmt;

use super::report::{Passage, PassedOver, Report, Top};
use crate::notation::{bytes, grouped};
use crate::report::{dropped, notes, skipped_reports};

/// Flows in a list of the picture; the JSON report has more.
const TOP: usize = 8;

impl PassedOver {
    /// What a reader should know of, in his words. What is ordinary is left to the JSON report.
    fn notes(&self) -> Vec<String> {
        notes([
            (
                self.overflowed,
                "packets of new flows found the table full and shared a bucket",
            ),
            (
                self.lost_race,
                "packets dropped because other CPUs were quicker at the bucket",
            ),
            (
                self.table_errors,
                "flows not entered for an error of the table",
            ),
            (self.malformed, "packets could not be parsed"),
            (self.exempt, "packets exempt"),
        ])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dropped = dropped(self.dry_run);
        let unit = if self.count_segments {
            "packets are wire segments"
        } else {
            "packets as the kernel hands them over"
        };
        let span = match (self.r#final, self.interval) {
            (true, _) | (_, None) => "in all".to_owned(),
            (false, Some(seconds)) => format!("last {seconds:.1} s"),
        };
        if let Some(seconds) = self.elapsed {
            write!(f, "{seconds:.1} s; ")?;
        }
        writeln!(f, "{}, by {}; rates and lists: {span}", self.rule, self.key)?;
        let (flows, room) = (grouped(self.flows), grouped(u64::from(self.room)));
        writeln!(f, "flows {flows} of {room}; {unit}, bytes L2 frames")?;
        writeln!(
            f,
            "{:<10} {:>14} {:>10} {:>12}",
            "", "packets", "bytes", "packets/s"
        )?;
        for (name, Passage { total, rate }) in [("passed", &self.passed), (dropped, &self.dropped)]
        {
            let rate = rate.map_or_else(String::new, |rate| format!("{rate:.1}"));
            let (packets, bytes) = (grouped(total.packets), bytes(total.bytes));
            let line = format!("{name:<10} {packets:>14} {bytes:>10} {rate:>12}");
            writeln!(f, "{}", line.trim_end())?;
        }
        write_list(f, "who passed most", dropped, &self.top_passed)?;
        write_list(f, "who lost most", dropped, &self.top_dropped)?;
        if self.overflow.passed + self.overflow.dropped > 0 {
            let (passed, lost) = (
                grouped(self.overflow.passed),
                grouped(self.overflow.dropped),
            );
            writeln!(
                f,
                "without a place in the table: {passed} passed, {lost} {dropped}"
            )?;
        }
        if let Some(trace) = &self.trace {
            writeln!(f, "trace: {trace}")?;
        }
        f.write_str(&skipped_reports(self.skipped_reports))?;
        for note in self.events.notes() {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

/// The name last: a 5-tuple of IPv6 is long.
fn write_list(f: &mut fmt::Formatter<'_>, title: &str, dropped: &str, top: &[Top]) -> fmt::Result {
    if top.is_empty() {
        return Ok(());
    }
    writeln!(f, "{:>14} {dropped:>14}  {title}", "passed")?;
    for Top { flow, counts } in top.iter().take(TOP) {
        let (passed, lost) = (grouped(counts.passed), grouped(counts.dropped));
        writeln!(f, "{passed:>14} {lost:>14}  {flow}")?;
    }
    Ok(())
}
