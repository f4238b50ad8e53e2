//! Numbers that look random and are the same for the same seed, so that a run can be repeated.

/// splitmix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Equal seeds give equal sequences.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in (0, 1], so that its logarithm is finite.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1: the time between two arrivals of a Poisson process of rate 1.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }
}

/// Ranks 1 to n with probability proportional to rank^-exponent; exponent 0 is the even distribution. Takes no memory
/// for n: W. Hörmann, G. Derflinger, Rejection-inversion to generate variates from monotone discrete distributions, 1996.
#[derive(Clone, Debug)]
pub struct Zipf {
    exponent: f64,
    n: f64,
    /// H(1.5) - 1 and H(n + 0.5), where H is the integral of x^-exponent.
    range: [f64; 2],
    /// What is taken without computing the second integral.
    sure: f64,
}

impl Zipf {
    /// Ranks up to `n`, at least 1; `exponent` at least 0.
    pub fn new(n: u64, exponent: f64) -> Self {
        let n = n.max(1) as f64;
        let range = [integral(1.5, exponent) - 1.0, integral(n + 0.5, exponent)];
        let sure = 2.0 - inverse(integral(2.5, exponent) - 2_f64.powf(-exponent), exponent);
        Self { exponent, n, range, sure }
    }

    /// A rank from 1.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let [low, high] = self.range;
        loop {
            let area = high + random.unit() * (low - high);
            let x = inverse(area, self.exponent);
            let rank = (x + 0.5).floor().clamp(1.0, self.n);
            if rank - x <= self.sure
                || area >= integral(rank + 0.5, self.exponent) - rank.powf(-self.exponent)
            {
                return rank as u64;
            }
        }
    }
}

/// The integral of x^-s, up to a constant that cancels: (x^(1-s) - 1) / (1 - s), in a form that is exact at s = 1.
fn integral(x: f64, s: f64) -> f64 {
    let log = x.ln();
    expm1_over((1.0 - s) * log) * log
}

/// The inverse of [`integral`].
fn inverse(area: f64, s: f64) -> f64 {
    // Rounding must not lead out of the logarithm's range.
    let t = (area * (1.0 - s)).max(-1.0);
    (ln1p_over(t) * area).exp()
}

/// (e^x - 1) / x.
fn expm1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// ln(1 + x) / x.
fn ln1p_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_gives_each_rank_its_share() {
        for exponent in [0.0, 0.5, 0.99, 1.0, 1.3] {
            let (n, draws) = (50, 400_000);
            let zipf = Zipf::new(n, exponent);
            let mut random = Random::new(7);
            let mut counts = vec![0_u32; n as usize + 1];
            for _ in 0..draws {
                counts[zipf.draw(&mut random) as usize] += 1;
            }
            assert_eq!(counts[0], 0);
            let total: f64 = (1..=n).map(|rank| (rank as f64).powf(-exponent)).sum();
            for rank in [1, 2, 3, 10, 50] {
                let expected = (rank as f64).powf(-exponent) / total * f64::from(draws);
                let off = (f64::from(counts[rank]) - expected).abs();
                // Six standard deviations.
                assert!(
                    off < 6.0 * expected.sqrt(),
                    "exponent {exponent}, rank {rank}: {} for {expected}",
                    counts[rank]
                );
            }
        }
    }

    #[test]
    fn zipf_reaches_the_ends_of_large_and_tiny_ranges() {
        let mut random = Random::new(1);
        assert!((0..100).all(|_| Zipf::new(1, 1.0).draw(&mut random) == 1));
        let zipf = Zipf::new(10_000_000, 1.0);
        let draws: Vec<u64> = (0..100_000).map(|_| zipf.draw(&mut random)).collect();
        assert!(draws.iter().all(|rank| (1..=10_000_000).contains(rank)));
        assert!(draws.contains(&1) && draws.iter().any(|rank| *rank > 5_000_000));
    }

    #[test]
    fn exponential_times_have_mean_and_deviation_one() {
        let mut random = Random::new(3);
        let times: Vec<f64> = (0..200_000).map(|_| random.exponential()).collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / times.len() as f64;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }
}
