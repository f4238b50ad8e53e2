//! What the terminal shows while a run goes on; nothing where there is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::drive::{Event, Row};

/// The bar of one run.
pub struct Live {
    bar: ProgressBar,
    warm_up: Duration,
    errors: u64,
}

impl Live {
    /// A run of so many seconds, under its name.
    pub fn new(name: &str, warm_up: Duration, duration: Duration) -> Self {
        let bar = ProgressBar::new((warm_up + duration).as_secs().max(1));
        if let Ok(style) = ProgressStyle::with_template("{prefix:24} {wide_bar} {pos}/{len} s  {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        Self { bar, warm_up, errors: 0 }
    }

    /// Shows what happened.
    pub fn show(&mut self, event: Event) {
        if let Event::Second(row) = event {
            self.errors += row.errors;
            self.bar.set_position((row.at + self.warm_up.as_secs_f64()).max(0.0) as u64);
            self.bar.set_message(line(&row, self.errors));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn line(row: &Row, errors: u64) -> String {
    format!("{:.0}/s  p50 {:.2}  p99 {:.2} ms  errors {errors}", row.answers_a_second, row.p50, row.p99)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_percentiles_and_errors() {
        let row = Row { at: 1.0, answers_a_second: 31_234.4, errors: 2, p50: 1.0, p99: 2.5, max: 9.0 };
        assert_eq!(line(&row, 7), "31234/s  p50 1.00  p99 2.50 ms  errors 7");
        let mut live = Live::new("a", Duration::from_secs(1), Duration::from_secs(2));
        live.show(Event::Second(row));
        assert_eq!((live.errors, live.bar.position()), (2, 2));
    }
}
