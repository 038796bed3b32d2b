//! What the agent is asked for, counted by the thread that serves and read by the one that tells.

use std::sync::atomic::{AtomicU64, Ordering};

use super::protocol::{Answer, Fault};

/// By the numbers of an answer's error.
const OUTCOMES: [&str; 7] = [
    "done",
    "version",
    "malformed",
    "handle",
    "elsewhere",
    "beyond",
    "refused",
];

#[derive(Debug, Default)]
pub struct Served {
    applications: AtomicU64,
    answers: [AtomicU64; OUTCOMES.len()],
}

impl Served {
    /// So many applications are connected now.
    pub fn connected(&self, applications: usize) {
        self.applications
            .store(applications as u64, Ordering::Relaxed);
    }

    /// Somebody is told this.
    pub fn answered(&self, outcome: &Result<Answer, Fault>) {
        let number = outcome.as_ref().err().map_or(0, |fault| *fault as usize);
        if let Some(count) = self.answers.get(number) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Applications that are connected.
    pub fn applications(&self) -> u64 {
        self.applications.load(Ordering::Relaxed)
    }

    /// How often each answer was given, by what it says.
    pub fn answers(&self) -> [(&'static str, u64); OUTCOMES.len()] {
        std::array::from_fn(|number| {
            let count = self.answers[number].load(Ordering::Relaxed);
            (OUTCOMES[number], count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_counted_by_its_name() {
        let served = Served::default();
        served.answered(&Ok(Answer::default()));
        for fault in [
            Fault::Version,
            Fault::Malformed,
            Fault::Handle,
            Fault::Elsewhere,
            Fault::Beyond,
            Fault::Refused,
        ] {
            served.answered(&Err(fault));
            let name = format!("{fault:?}").to_lowercase();
            assert!(served.answers().contains(&(&name, 1)), "{name}");
        }
        assert!(served.answers().contains(&("done", 1)));
    }
}
