//! Named steps, each timed; the first that fails ends the run.

use std::time::{Duration, Instant};

/// What was run so far.
#[derive(Default)]
pub(crate) struct Steps {
    passed: Vec<(String, Duration)>,
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
        let outcome = step();
        let took = started.elapsed();
        match outcome {
            Ok(value) => {
                println!("== {name}: {:.1} s", took.as_secs_f64());
                self.passed.push((name.to_owned(), took));
                Ok(value)
            }
            Err(error) => {
                println!("== {name}: failed after {:.1} s", took.as_secs_f64());
                Err(error.context(format!("{} passed, 1 failed: {name}", self.passed.len())))
            }
        }
    }

    /// Prints every step's seconds, and how many there were.
    pub(crate) fn finish(&self) {
        println!("\nseconds");
        for (name, took) in &self.passed {
            println!("{:>7.1}  {name}", took.as_secs_f64());
        }
        let total: Duration = self.passed.iter().map(|(_, took)| *took).sum();
        println!("{:>7.1}  in all", total.as_secs_f64());
        println!("{} passed, 0 failed", self.passed.len());
    }
}
