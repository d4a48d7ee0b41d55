//! What runs and how long is left, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::document::Sample;
use super::kind::Test;
use super::render::figure;

/// Counts steps off against the clock.
pub struct Progress {
    started: Instant,
    steps: usize,
    done: usize,
    /// Seconds by experience: of all steps, and of those done.
    expected: f64,
    passed: f64,
}

impl Progress {
    /// Nothing done yet.
    pub fn new(steps: usize, expected: Duration) -> Self {
        let progress = Self {
            started: Instant::now(),
            steps,
            done: 0,
            expected: expected.as_secs_f64(),
            passed: 0.0,
        };
        line(&format!("{steps} runs, about {}", clock(progress.left())));
        progress
    }

    /// Before a step.
    pub fn begins(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            let text = format!("{} {what} …", self.head());
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
        }
    }

    /// After a step that takes `seconds` by experience.
    pub fn ended(&mut self, what: &str, test: Test, result: &Result<Sample, String>, seconds: f64) {
        self.done += 1;
        self.passed += seconds;
        let found = match result {
            Ok(sample) => figure::with_unit(test, sample.value),
            Err(reason) => format!("FAILED: {reason}"),
        };
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
        line(&format!("{} {what}: {found}", self.head()));
    }

    /// How long everything took.
    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    fn head(&self) -> String {
        format!(
            "[{:>3}/{}, {} left]",
            self.done,
            self.steps,
            clock(self.left())
        )
    }

    /// What is left by experience, scaled by how wrong experience was so far.
    fn left(&self) -> Duration {
        let left = (self.expected - self.passed).max(0.0);
        let scale = if self.passed > 0.0 {
            self.started.elapsed().as_secs_f64() / self.passed
        } else {
            1.0
        };
        Duration::from_secs_f64(left * scale)
    }
}

fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn clock(left: Duration) -> String {
    let seconds = left.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_shrinks_to_nothing() {
        let mut progress = Progress::new(2, Duration::from_secs(20));
        assert_eq!(progress.left(), Duration::from_secs(20));
        let result = Ok(Sample::default());
        progress.ended("one", Test::Dts, &result, 10.0);
        progress.ended("two", Test::Dts, &result, 10.0);
        assert_eq!(clock(progress.left()), "0:00");
    }
}
