//! When requests are due in the open loop: moments that wait for nobody.

use std::time::Duration;

use crate::random::Random;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrivals {
    /// Each when an answer is there: as many under way as there are connections.
    Closed,
    /// On a schedule, whatever the server does.
    Open {
        /// How many a second.
        rate: Rate,
        /// Times between them are exponentially distributed, as of many clients that know nothing of each other;
        /// else they are equal.
        poisson: bool,
    },
}

/// Requests a second over the measured time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// The same all the time.
    Constant(f64),
    /// From the first to the second in a straight line; the first during the warm-up.
    Ramp(f64, f64),
}

/// The due moments of one run, each as the time since its beginning.
pub(crate) struct Schedule {
    rate: Rate,
    /// Of the gaps; `None` = equal ones.
    random: Option<Random>,
    warm_up: f64,
    seconds: f64,
    /// Expected arrivals up to the next one.
    arrivals: f64,
}

impl Schedule {
    /// `None` in the closed loop.
    pub(crate) fn new(arrivals: Arrivals, warm_up: Duration, seconds: Duration, seed: u64) -> Option<Self> {
        let Arrivals::Open { rate, poisson } = arrivals else { return None };
        let random = poisson.then(|| Random::new(seed));
        Some(Self {
            rate,
            random,
            warm_up: warm_up.as_secs_f64(),
            seconds: seconds.as_secs_f64(),
            arrivals: 0.0,
        })
    }

    /// When a number of arrivals is expected, seconds since the beginning.
    fn moment(&self, arrivals: f64) -> f64 {
        match self.rate {
            Rate::Constant(rate) => arrivals / rate,
            Rate::Ramp(from, to) => {
                let rest = arrivals - from * self.warm_up;
                if rest <= 0.0 {
                    return arrivals / from;
                }
                // rest = from t + slope t² / 2, solved so that a slope of zero is nothing special.
                let slope = (to - from) / self.seconds;
                let root = (from * from + 2.0 * slope * rest).max(0.0).sqrt();
                self.warm_up + 2.0 * rest / (from + root)
            }
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.arrivals += self.random.as_mut().map_or(1.0, Random::exponential);
        let moment = self.moment(self.arrivals);
        // A falling ramp may never reach that many.
        (moment < self.warm_up + self.seconds).then(|| Duration::from_secs_f64(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(rate: Rate, poisson: bool, warm_up: u64, seconds: u64) -> Vec<f64> {
        let arrivals = Arrivals::Open { rate, poisson };
        let schedule =
            Schedule::new(arrivals, Duration::from_secs(warm_up), Duration::from_secs(seconds), 11).unwrap();
        schedule.map(|moment| moment.as_secs_f64()).collect()
    }

    #[test]
    fn the_closed_loop_has_no_schedule() {
        assert!(Schedule::new(Arrivals::Closed, Duration::ZERO, Duration::from_secs(1), 1).is_none());
    }

    #[test]
    fn constant_arrivals_keep_their_distance() {
        let moments = moments(Rate::Constant(1_000.0), false, 1, 9);
        assert!((9_999..=10_000).contains(&moments.len()), "{}", moments.len());
        assert!(moments.windows(2).all(|pair| (pair[1] - pair[0] - 0.001).abs() < 1e-6));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_as_mean_and_as_variance() {
        let moments = moments(Rate::Constant(2_000.0), true, 0, 100);
        // 200,000 expected, standard deviation 447.
        assert!((moments.len() as f64 - 200_000.0).abs() < 2_700.0, "{}", moments.len());
        let mut counts = vec![0.0; 10_000];
        for moment in &moments {
            counts[(moment * 100.0) as usize] += 1.0;
        }
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let variance =
            counts.iter().map(|count: &f64| (count - mean).powi(2)).sum::<f64>() / counts.len() as f64;
        assert!((variance / mean - 1.0).abs() < 0.1, "{mean} {variance}");
    }

    #[test]
    fn a_ramp_rises_and_falls_in_a_straight_line() {
        for (from, to) in [(100.0, 1_900.0), (1_900.0, 100.0), (1_000.0, 1_000.0)] {
            let moments = moments(Rate::Ramp(from, to), false, 2, 10);
            assert!(moments.windows(2).all(|pair| pair[1] > pair[0]));
            let within =
                |range: std::ops::Range<f64>| moments.iter().filter(|m| range.contains(m)).count() as f64;
            assert!((within(0.0..2.0) - 2.0 * from).abs() < 3.0);
            assert!((within(2.0..12.0) - 5.0 * (from + to)).abs() < 3.0);
            let quarter = from + (to - from) / 8.0;
            assert!((within(2.0..4.5) - 2.5 * quarter).abs() < 3.0, "{from} {to}");
        }
    }
}
