//! `bench size`: what a load needs, from measured coefficients.
//!
//! The model is a multiplication and nowhere cleverer than that: whoever doubts a figure can follow it by hand. What it rests on
//! is in `bench/capacity.json` (measured, with where from) and in [`Assumptions`] (chosen, with why); `bench/capacity.md` says
//! what it leaves out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The committed coefficients.
const COEFFICIENTS: &str = include_str!("../capacity.json");
const SECONDS_A_DAY: f64 = 86_400.0;
const DAYS_A_YEAR: f64 = 365.0;
const GIB: f64 = (1_u64 << 30) as f64;
const TIB: f64 = (1_u64 << 40) as f64;

/// A measured number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    value: f64,
    /// What measured it.
    from: String,
}

/// What an answer and a license cost.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Coefficients {
    /// Answers a second of one core that does nothing else.
    answers_per_core: Measured,
    /// The part of that work which only the one sequencer of a log can do.
    sequencer_share: Measured,
    /// Bytes of the journal for one answer.
    entry_bytes: Measured,
    /// `fdatasync` calls for one group of answers.
    syncs_per_group: Measured,
    /// Time of one of them, ms.
    sync_millis: Measured,
    /// Resident bytes for one license, with its holder, grants and whatever else is kept for it.
    hot_bytes_per_license: Measured,
}

impl Coefficients {
    /// The committed ones.
    ///
    /// # Errors
    /// The file is not of this form, or a number in it is not above zero.
    pub fn committed() -> anyhow::Result<Self> {
        Self::parse(COEFFICIENTS)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let coefficients: Self = serde_json::from_str(text)?;
        for (name, measured) in coefficients.all() {
            anyhow::ensure!(
                measured.value.is_finite() && measured.value > 0.0,
                "{name} must be above zero and is {}",
                measured.value
            );
            anyhow::ensure!(!measured.from.is_empty(), "{name} does not say where it is from");
        }
        Ok(coefficients)
    }

    fn all(&self) -> [(&'static str, &Measured); 6] {
        [
            ("answersPerCore", &self.answers_per_core),
            ("sequencerShare", &self.sequencer_share),
            ("entryBytes", &self.entry_bytes),
            ("syncsPerGroup", &self.syncs_per_group),
            ("syncMillis", &self.sync_millis),
            ("hotBytesPerLicense", &self.hot_bytes_per_license),
        ]
    }
}

/// What is chosen and not measured.
#[derive(Clone, Copy, Debug, Serialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub struct Assumptions {
    /// Peak ÷ mean of the load.
    #[arg(long, default_value_t = 10.0, value_parser = above_zero)]
    peak_to_mean: f64,
    /// How busy a processor may be at the peak: latency is stated at half of the knee.
    #[arg(long, default_value_t = 0.5, value_parser = share)]
    busy: f64,
    /// Cores of a machine.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    cores: u32,
    /// Memory of a machine, GiB; half of it is for the hot state, the rest for the page cache and a second copy while a
    /// snapshot is made.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    memory_gib: u32,
    /// A disk, TiB.
    #[arg(long, default_value_t = 7.0, value_parser = above_zero)]
    disk_tib: f64,
}

/// The share of a machine's memory that the hot state may take.
const HOT_SHARE: f64 = 0.5;

fn above_zero(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("must be above zero".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    above_zero(text).and_then(|share| if share <= 1.0 { Ok(share) } else { Err("at most 1".to_owned()) })
}

/// What is asked.
#[derive(Debug, clap::Args)]
pub struct Demand {
    /// Requests a second at the peak.
    #[arg(long, value_parser = above_zero)]
    rps: f64,
    /// Licenses in the register.
    #[arg(long, value_parser = above_zero)]
    licenses: f64,
    #[command(flatten)]
    assumptions: Assumptions,
    /// JSON output.
    #[arg(long)]
    pub json: bool,
}

/// What is needed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sizing {
    /// Requests a second at the peak, as asked.
    pub peak_rps: f64,
    /// And on average.
    pub mean_rps: f64,
    /// Licenses, as asked.
    pub licenses: f64,
    /// Cores that are at work at the peak, none busier than assumed.
    pub cores: f64,
    /// Logs that the peak needs, each with its one sequencer.
    pub logs: f64,
    /// Resident state, GiB.
    pub hot_gib: f64,
    /// Machines: as many as cores, logs or memory need, whichever is most. One log a machine; no stand-by is in it.
    pub machines: f64,
    /// What decides about that.
    pub bound: &'static str,
    /// `fdatasync` a second of one machine at the peak.
    pub syncs_a_second: f64,
    /// Bytes a second that one machine's journal writes at the peak, MiB.
    pub write_mib_a_second: f64,
    /// Growth of all journals in a year, TiB.
    pub log_tib_a_year: f64,
    /// Disks that hold a year of it.
    pub disks_a_year: f64,
    /// What that assumes.
    pub assumptions: Assumptions,
    /// What each coefficient is and where it is from.
    sources: Vec<String>,
}

impl Sizing {
    /// Sizes a load.
    pub fn of(demand: &Demand, coefficients: &Coefficients) -> Self {
        let Assumptions { peak_to_mean, busy, cores: cores_each, memory_gib, disk_tib } = demand.assumptions;
        let of = |measured: &Measured| measured.value;
        let mean_rps = demand.rps / peak_to_mean;
        let core_seconds = 1.0 / of(&coefficients.answers_per_core);
        let sequencer_seconds = core_seconds * of(&coefficients.sequencer_share);
        let cores = demand.rps * core_seconds / busy;
        let logs = (demand.rps * sequencer_seconds / busy).ceil().max(1.0);
        let hot_gib = demand.licenses * of(&coefficients.hot_bytes_per_license) / GIB;
        let needs = [
            ("cores", (cores / f64::from(cores_each)).ceil()),
            ("sequencers", logs),
            ("memory", (hot_gib / (f64::from(memory_gib) * HOT_SHARE)).ceil()),
        ];
        // The first of equals names what decides.
        let (bound, machines) = needs
            .into_iter()
            .fold(("one machine is enough", 1.0), |most, need| if need.1 > most.1 { need } else { most });
        let each = demand.rps / machines;
        let sync_seconds = of(&coefficients.sync_millis) / 1e3;
        // A group is what came while the one before it was made: with g entries that takes sync + g × sequencer, and g is
        // what arrives in that time, but at least one.
        let alone = each * (sync_seconds + sequencer_seconds) <= 1.0;
        let groups = if alone { each } else { (1.0 - each * sequencer_seconds) / sync_seconds };
        let entry_bytes = of(&coefficients.entry_bytes);
        let log_tib_a_year = mean_rps * SECONDS_A_DAY * DAYS_A_YEAR * entry_bytes / TIB;
        Self {
            peak_rps: demand.rps,
            mean_rps,
            licenses: demand.licenses,
            cores,
            logs,
            hot_gib,
            machines,
            bound,
            syncs_a_second: groups * of(&coefficients.syncs_per_group),
            write_mib_a_second: each * entry_bytes / f64::from(1 << 20),
            log_tib_a_year,
            disks_a_year: (log_tib_a_year / disk_tib).ceil(),
            assumptions: demand.assumptions,
            sources: coefficients
                .all()
                .into_iter()
                .map(|(name, measured)| format!("{name} {}: {}", measured.value, measured.from))
                .collect(),
        }
    }

    /// The figures with their names.
    fn figures(&self) -> [(&'static str, String); 11] {
        let whole = |number: f64| grouped(number.round());
        [
            ("requests a second, peak", whole(self.peak_rps)),
            ("requests a second, mean", whole(self.mean_rps)),
            ("licenses", whole(self.licenses)),
            ("cores at work at the peak", format!("{:.1}", self.cores)),
            ("logs for the peak", whole(self.logs)),
            ("hot state, GiB", format!("{:.1}", self.hot_gib)),
            ("machines", format!("{} ({})", whole(self.machines), self.bound)),
            ("syncs a second of one machine", whole(self.syncs_a_second)),
            ("journal of one machine, MiB/s", format!("{:.1}", self.write_mib_a_second)),
            ("log growth a year, TiB", format!("{:.1}", self.log_tib_a_year)),
            ("disks for a year of log", whole(self.disks_a_year)),
        ]
    }
}

/// A whole number with commas between its thousands.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Sizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figure) in self.figures() {
            writeln!(f, "{name:<32} {figure}")?;
        }
        let Assumptions { peak_to_mean, busy, cores, memory_gib, disk_tib } = self.assumptions;
        writeln!(
            f,
            "\nassuming a peak of {peak_to_mean} × the mean, cores {:.0} % busy at it, \
             machines of {cores} cores and {memory_gib} GiB, disks of {disk_tib} TiB\n\nfrom",
            busy * 100.0
        )?;
        for source in &self.sources {
            writeln!(f, "  {source}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page that shows three sizes.
    const PAGE: &str = include_str!("../capacity.md");
    /// Name, requests a second at the peak and licenses of each, as the page derives them.
    const PLACES: [(&str, f64, f64); 3] = [
        ("a city of 10 million", 2_400.0, 60e6),
        ("a province of 65 million", 16_000.0, 390e6),
        ("the nation, 1.4 billion", 340_000.0, 8.4e9),
    ];

    fn assumptions() -> Assumptions {
        Assumptions { peak_to_mean: 10.0, busy: 0.5, cores: 16, memory_gib: 256, disk_tib: 7.0 }
    }

    fn sized(rps: f64, licenses: f64) -> Sizing {
        let demand = Demand { rps, licenses, assumptions: assumptions(), json: false };
        Sizing::of(&demand, &Coefficients::committed().unwrap())
    }

    #[test]
    fn the_page_shows_what_the_model_says() {
        let sizes: Vec<Sizing> = PLACES.iter().map(|(_, rps, licenses)| sized(*rps, *licenses)).collect();
        let names = PLACES.map(|(name, _, _)| name).join(" | ");
        let mut table = format!("| | {names} |\n|---|---|---|---|\n");
        for row in 0..sizes[0].figures().len() {
            let name = sizes[0].figures()[row].0;
            let cells: Vec<String> = sizes.iter().map(|sizing| sizing.figures()[row].1.clone()).collect();
            table += &format!("| {name} | {} |\n", cells.join(" | "));
        }
        assert!(PAGE.contains(&table), "bench/capacity.md should hold this table:\n{table}");
    }

    #[test]
    fn the_page_names_every_coefficient() {
        for (name, _) in Coefficients::committed().unwrap().all() {
            assert!(PAGE.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_size_can_be_followed_by_hand() {
        let coefficients = Coefficients::parse(
            r#"{"answersPerCore":{"value":20000,"from":"x"},"sequencerShare":{"value":0.2,"from":"x"},
            "entryBytes":{"value":1000,"from":"x"},"syncsPerGroup":{"value":1,"from":"x"},"syncMillis":{"value":0.1,"from":"x"},
            "hotBytesPerLicense":{"value":1000,"from":"x"}}"#,
        )
        .unwrap();
        let demand = |rps, licenses| Demand { rps, licenses, assumptions: assumptions(), json: false };
        let small = Sizing::of(&demand(1_000.0, 1e6), &coefficients);
        assert_eq!((small.machines, small.logs, small.bound), (1.0, 1.0, "one machine is enough"));
        assert!((small.cores - 0.1).abs() < 1e-9 && (small.syncs_a_second - 1_000.0).abs() < 1e-9);
        assert!((small.log_tib_a_year - 100.0 * 86_400.0 * 365.0 * 1_000.0 / TIB).abs() < 1e-9);
        // 400,000 a second: 40 busy cores of 16, and 8 sequencers at half.
        let busy = Sizing::of(&demand(400_000.0, 1e6), &coefficients);
        assert_eq!((busy.machines, busy.logs, busy.bound), (8.0, 8.0, "sequencers"));
        // 50,000 a second of a sequencer that takes 10 µs: half of its time is left for syncs of 0.1 ms.
        assert!((busy.syncs_a_second - 5_000.0).abs() < 1e-6);
        let large = Sizing::of(&demand(1_000.0, 10e9), &coefficients);
        assert_eq!(large.bound, "memory");
        assert!((large.hot_gib - 10e12 / GIB).abs() < 1e-6);
    }

    #[test]
    fn coefficients_that_say_nothing_are_refused() {
        let with = |name: &str, value: serde_json::Value| {
            let mut all: serde_json::Value = serde_json::from_str(COEFFICIENTS).unwrap();
            all["entryBytes"][name] = value;
            Coefficients::parse(&all.to_string())
        };
        assert!(with("value", 900.into()).is_ok());
        assert!(with("value", 0.into()).is_err());
        assert!(with("value", (-1).into()).is_err());
        assert!(with("from", "".into()).is_err());
        assert!(with("valve", 1.into()).is_err());
    }

    #[test]
    fn thousands_are_told_apart() {
        assert_eq!([0.0, 999.0, 1_000.0, 12_345_678.0].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
