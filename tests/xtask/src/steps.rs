//! Named steps, each timed; the first that fails ends the run. A step that the machine cannot run is named at the end
//! and counts as skipped, never as passed; in CI it fails. In CI a step that hangs is named and ends the run.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The longest that a step may take in CI.
const CI_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What was run so far.
pub(crate) struct Steps {
    /// This is a CI run: nothing may be left out in silence.
    ci: bool,
    passed: Vec<(String, Duration)>,
    /// Name and reason.
    skipped: Vec<(String, String)>,
}

/// How a step ended that not every machine can run.
pub(crate) enum Ran {
    /// It ran and passed.
    Passed,
    /// It could not run; what the machine lacks.
    Lacking(String),
}

impl Default for Steps {
    fn default() -> Self {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        Self { ci, passed: Vec::new(), skipped: Vec::new() }
    }
}

impl Steps {
    /// Runs one step under its name; prints its seconds.
    pub(crate) fn run<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        println!("== {name}");
        let started = Instant::now();
        let watch = self.ci.then(|| end_after(name, CI_LIMIT));
        let outcome = step();
        drop(watch);
        let took = started.elapsed();
        match outcome {
            Ok(value) => {
                println!("== {name}: {:.1} s", took.as_secs_f64());
                self.passed.push((name.to_owned(), took));
                Ok(value)
            }
            Err(error) => {
                println!("== {name}: failed after {:.1} s", took.as_secs_f64());
                let skipped = self.skipped();
                Err(error.context(format!("{} passed, {skipped}, 1 failed: {name}", self.passed.len())))
            }
        }
    }

    /// Runs a step that not every machine can run. Where it cannot run it is skipped; in CI that is a failure.
    pub(crate) fn run_if_possible(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<Ran>,
    ) -> anyhow::Result<()> {
        let (ci, mut lacking) = (self.ci, None);
        self.run(name, || match step()? {
            Ran::Lacking(what) if ci => anyhow::bail!("CI must run this: {what}"),
            Ran::Lacking(what) => {
                lacking = Some(what);
                Ok(())
            }
            Ran::Passed => Ok(()),
        })?;
        if let Some(what) = lacking {
            self.passed.pop();
            self.skip(name, &what);
        }
        Ok(())
    }

    /// Counts a step as skipped, also in CI.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("== {name}: skipped, {why}");
        self.skipped.push((name.to_owned(), why.to_owned()));
    }

    fn skipped(&self) -> String {
        let names: Vec<String> = self.skipped.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        match names.len() {
            0 => "0 skipped".to_owned(),
            count => format!("{count} skipped: {}", names.join(", ")),
        }
    }

    /// Prints every step's seconds, and how many passed and were skipped.
    pub(crate) fn finish(&self) {
        println!("\nseconds");
        for (name, took) in &self.passed {
            println!("{:>7.1}  {name}", took.as_secs_f64());
        }
        let total: Duration = self.passed.iter().map(|(_, took)| *took).sum();
        println!("{:>7.1}  in all", total.as_secs_f64());
        println!("{}", self.counts());
    }

    fn counts(&self) -> String {
        format!("{} passed, {}, 0 failed", self.passed.len(), self.skipped())
    }
}

/// Ends the process with an error unless what is returned is dropped in time.
fn end_after(name: &str, limit: Duration) -> mpsc::Sender<()> {
    let (watch, over) = mpsc::channel();
    let name = name.to_owned();
    std::thread::spawn(move || {
        if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            println!("== {name}: hangs, given up after {} s", limit.as_secs());
            std::process::exit(1);
        }
    });
    watch
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking() -> anyhow::Result<Ran> {
        Ok(Ran::Lacking("no /dev/fuse".to_owned()))
    }

    #[test]
    fn what_cannot_run_is_named_and_not_passed() {
        let mut steps = Steps { ci: false, ..Steps::default() };
        steps.run_if_possible("sweep", || Ok(Ran::Passed)).expect("it passes");
        steps.run_if_possible("power cut", lacking).expect("it is skipped");
        assert_eq!(steps.counts(), "1 passed, 1 skipped: power cut (no /dev/fuse), 0 failed");
        assert!(steps.run_if_possible("sweep", || anyhow::bail!("lost")).is_err());
    }

    #[test]
    fn in_ci_only_what_is_skipped_by_name_may_be_missing() {
        let mut steps = Steps { ci: true, ..Steps::default() };
        assert!(steps.run_if_possible("power cut", lacking).is_err());
        steps.skip("foreign witness", "no Python 3.12");
        assert_eq!(steps.counts(), "0 passed, 1 skipped: foreign witness (no Python 3.12), 0 failed");
    }
}
