//! Scenario files: what is asked of whom, and when. TOML; unknown keys are errors.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::drive::{Arrivals, Protocol, Rate};
use crate::population::Size;

/// The scenarios that are part of this program, by name.
const SHIPPED: [(&str, &str); 11] = [
    ("verify", include_str!("../scenarios/verify.toml")),
    ("machine", include_str!("../scenarios/machine.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("knee", include_str!("../scenarios/knee.toml")),
    ("ramp", include_str!("../scenarios/ramp.toml")),
    ("soak", include_str!("../scenarios/soak.toml")),
    ("connections", include_str!("../scenarios/connections.toml")),
    ("train", include_str!("../scenarios/train.toml")),
    ("query", include_str!("../scenarios/query.toml")),
    ("query-lines", include_str!("../scenarios/query-lines.toml")),
    ("verify-batch", include_str!("../scenarios/verify-batch.toml")),
];
/// Largest population.
const MAX_POPULATION: u64 = 10_000_000;
/// Most connections of one identity.
const MAX_CONNECTIONS: usize = 1_000;
/// Most streams of a connection.
const MAX_STREAMS: usize = 128;
/// Most requests of a body in lines, and of a batch.
const MAX_LINES: u16 = 1_000;
const MAX_BATCH_LINES: u16 = 10_000;
/// Longest phase: a day.
const MAX_SECONDS: u64 = 86_400;

/// A scenario. It drives either an exchange of its own or any service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One line that says what it shows.
    pub title: String,
    /// Connections and times.
    #[serde(default)]
    pub load: Load,
    /// The phases, one after another.
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    /// Drives an exchange that the bench starts on a folder of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// Drives any service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// Connections and times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Connections of each client certificate; in the closed loop also requests under way in all. Default 64.
    pub connections: usize,
    /// `1.1` or `2`. Default `1.1`.
    pub http: Http,
    /// Streams of a connection with HTTP/2. Default 8.
    pub streams: usize,
    /// Offer to resume sessions when a connection is made again. Default true.
    pub resumption: bool,
    /// Answers after which a connection is closed and made again; HTTP/1.1 only. Default: it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_a_connection: Option<NonZeroU64>,
    /// Measured seconds of a phase. Default 10.
    pub seconds: u64,
    /// Seconds of the same load before them. Default 1.
    pub warm_up: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            connections: 64,
            http: Http::default(),
            streams: 8,
            resumption: true,
            requests_a_connection: None,
            seconds: 10,
            warm_up: 1,
        }
    }
}

/// Version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Http {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "1.1")]
    One,
    /// HTTP/2.
    #[serde(rename = "2")]
    Two,
}

/// A phase. In the open loop exactly one of `rate`, `ramp` and `steps` is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// When requests are sent.
    pub arrivals: Arrival,
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Amount>,
    /// From the first to the second in a straight line over the measured time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<[Amount; 2]>,
    /// One run after another, each with the whole measured time; they end behind the knee.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<Amount>>,
    /// Measured seconds. Default: the load's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// Each when an answer is there.
    Closed,
    /// On a schedule with equal gaps.
    Constant,
    /// On a schedule with exponentially distributed gaps.
    Poisson,
}

/// Requests a second: a number, or `"50%"` of what the closed loop before reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Amount {
    /// So many.
    Absolute(f64),
    /// A share of the maximum.
    Share(f64),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl TryFrom<Written> for Amount {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let amount = match &written {
            Written::Number(number) => Self::Absolute(*number),
            Written::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
                Self::Share(percent.ok_or_else(|| format!("{text:?} is no share: write \"50%\""))? / 100.0)
            }
        };
        let (Self::Absolute(value) | Self::Share(value)) = amount;
        if value.is_finite() && value > 0.0 { Ok(amount) } else { Err("a rate is above 0".to_owned()) }
    }
}

impl From<Amount> for Written {
    fn from(amount: Amount) -> Self {
        match amount {
            Amount::Absolute(rate) => Self::Number(rate),
            Amount::Share(share) => Self::Text(format!("{}%", share * 100.0)),
        }
    }
}

impl Amount {
    /// Requests a second; `None` when it is a share of something that was not measured.
    pub fn of(self, maximum: Option<f64>) -> Option<f64> {
        match self {
            Self::Absolute(rate) => Some(rate),
            Self::Share(share) => maximum.map(|maximum| maximum * share),
        }
    }
}

/// An exchange of the bench's own, and what is asked of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// Licenses in it, in turn of a natural person with the holder's grant and of a legal person. A folder that is given
    /// keeps those it has.
    pub licenses: u64,
    /// Rows of a hosted resource, which `query` asks for. A folder that is given keeps those it has.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u64,
    /// Exponent of the popularity of licenses: 0 is even, 1 the usual.
    #[serde(default)]
    pub zipf: f64,
    /// Operations with their shares.
    pub mix: Vec<Share>,
    /// Lengths of the requests that issue licenses, as far as their types allow. Default: as they come, about 700 bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<Size>,
}

/// One operation of a mix.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// What is asked.
    pub operation: Operation,
    /// Its weight among all.
    pub share: f64,
    /// Ask for the inclusion proof in the receipt.
    #[serde(default)]
    pub inline_proof: bool,
    /// Ask as machine peers do, in FlatBuffers: `verify` and `retrieve` only.
    #[serde(default)]
    pub machine: bool,
    /// Requests of a body in lines; each line is a question and has an answer of its own: of `query`, and of `verify` as a batch with a
    /// report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<u16>,
}

/// What is asked of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// The approval system verifies by identifier.
    Verify,
    /// The approval system retrieves the envelope.
    Retrieve,
    /// The portal searches the licenses of a holder.
    Search,
    /// The authority issues a license.
    Issue,
    /// The portal makes a grant for the bank.
    Grant,
    /// The approval system asks for a row of a hosted resource.
    Query,
}

/// Any service, and what is expected of it. Paths are relative to the scenario's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `host:port`.
    pub address: String,
    /// Name in its certificate. Default: the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// CAs to trust, PEM.
    pub ca: PathBuf,
    /// Client certificate chain, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Method. Default `GET`.
    #[serde(default = "get")]
    pub method: String,
    /// Path; `{n}` stands for a number of the population, from 0.
    pub path: String,
    /// Headers beside `host` and `content-length`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// File with the body; `{n}` as in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<PathBuf>,
    /// Numbers from 0 below this. Default 1.
    #[serde(default = "one")]
    pub population: u64,
    /// Exponent of their popularity.
    #[serde(default)]
    pub zipf: f64,
    /// The right answer.
    pub expect: Expect,
}

/// Leaves a number out of a report that has none to show.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn get() -> String {
    "GET".to_owned()
}

const fn one() -> u64 {
    1
}

/// The right answer: its status, and exactly one of the others.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Status.
    pub status: u16,
    /// File with the body; `{n}` stands for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<PathBuf>,
    /// SHA-256 of the body, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Length of the body, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

impl Load {
    /// What is spoken.
    pub fn protocol(&self) -> Protocol {
        match self.http {
            Http::One => Protocol::Http1,
            Http::Two => Protocol::Http2 { streams: self.streams },
        }
    }
}

impl Phase {
    /// The measured time.
    pub fn duration(&self, load: &Load) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(load.seconds))
    }

    /// The runs of this phase.
    ///
    /// # Errors
    /// A rate is a share of a maximum that no phase before has measured.
    pub fn runs(&self, maximum: Option<f64>) -> anyhow::Result<Vec<Arrivals>> {
        let of =
            |amount: Amount| amount.of(maximum).context("a share of a maximum needs a closed loop before it");
        let poisson = match self.arrivals {
            Arrival::Closed => return Ok(vec![Arrivals::Closed]),
            Arrival::Constant => false,
            Arrival::Poisson => true,
        };
        let rates = match (self.rate, self.ramp, &self.steps) {
            (Some(rate), None, None) => vec![Rate::Constant(of(rate)?)],
            (None, Some([from, to]), None) => vec![Rate::Ramp(of(from)?, of(to)?)],
            (None, None, Some(steps)) => {
                steps.iter().map(|step| Ok(Rate::Constant(of(*step)?))).collect::<anyhow::Result<_>>()?
            }
            _ => bail!("an open loop has one of rate, ramp and steps"),
        };
        Ok(rates.into_iter().map(|rate| Arrivals::Open { rate, poisson }).collect())
    }
}

impl Scenario {
    /// A shipped scenario by its name, or a file; with the folder that its paths are relative to.
    ///
    /// # Errors
    /// There is no such scenario, or it makes no sense.
    pub fn load(name: &str) -> anyhow::Result<(Self, PathBuf)> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Ok((Self::parse(text)?, PathBuf::new()));
        }
        let path = Path::new(name);
        let names = SHIPPED.map(|(name, _)| name).join(", ");
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{name} is no scenario ({names}) and no file that can be read"))?;
        let scenario = Self::parse(&text).with_context(|| name.to_owned())?;
        Ok((scenario, path.parent().unwrap_or(Path::new("")).to_owned()))
    }

    /// Reads and checks a scenario.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> anyhow::Result<()> {
        let load = &self.load;
        ensure!(
            (1..=MAX_CONNECTIONS).contains(&load.connections),
            "connections: from 1 to {MAX_CONNECTIONS}"
        );
        ensure!((1..=MAX_STREAMS).contains(&load.streams), "streams: from 1 to {MAX_STREAMS}");
        ensure!(
            load.http == Http::One || load.requests_a_connection.is_none(),
            "requests_a_connection: HTTP/1.1 only"
        );
        let times = self.phases.iter().filter_map(|phase| phase.seconds).chain([load.seconds]);
        ensure!(
            times.into_iter().all(|s| (1..=MAX_SECONDS).contains(&s)),
            "seconds: from 1 to {MAX_SECONDS}"
        );
        ensure!(load.warm_up <= MAX_SECONDS, "warm_up: at most {MAX_SECONDS}");
        ensure!(!self.phases.is_empty(), "a scenario has a phase");
        let mut maximum = None;
        for phase in &self.phases {
            if phase.arrivals == Arrival::Closed {
                ensure!(
                    phase.rate.is_none() && phase.ramp.is_none() && phase.steps.is_none(),
                    "a closed loop has no rate"
                );
                maximum = Some(1.0);
            }
            ensure!(!phase.runs(maximum)?.is_empty(), "steps: at least one");
        }
        match (&self.exchange, &self.target) {
            (Some(exchange), None) => exchange.check(),
            (None, Some(target)) => target.check(),
            _ => bail!("a scenario has one of [exchange] and [target]"),
        }
    }
}

impl Exchange {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((2..=MAX_POPULATION).contains(&self.licenses), "licenses: from 2 to {MAX_POPULATION}");
        ensure!((0.0..=5.0).contains(&self.zipf), "zipf: from 0 to 5");
        ensure!(!self.mix.is_empty(), "a mix has an operation");
        let in_either_form = |operation| matches!(operation, Operation::Verify | Operation::Retrieve);
        ensure!(
            self.mix.iter().all(|share| !share.machine || in_either_form(share.operation)),
            "machine: of verify and retrieve only"
        );
        let queries = self.mix.iter().any(|share| share.operation == Operation::Query);
        ensure!(
            self.rows <= MAX_POPULATION && (self.rows > 0 || !queries),
            "rows: from 1 to {MAX_POPULATION}, where one is queried"
        );
        let most = |share: &Share| match share.operation {
            Operation::Query => MAX_LINES,
            Operation::Verify if !share.machine => MAX_BATCH_LINES,
            Operation::Verify
            | Operation::Retrieve
            | Operation::Search
            | Operation::Issue
            | Operation::Grant => 0,
        };
        ensure!(
            self.mix.iter().all(|share| {
                let fits = |lines: u16| (1..=most(share)).contains(&lines) && !share.inline_proof;
                share.lines.is_none_or(fits)
            }),
            "lines: from 1 to {MAX_LINES} of query, to {MAX_BATCH_LINES} of verify; of no other, and without proofs"
        );
        let shares = self.mix.iter().map(|share| share.share).chain(self.sizes.iter().map(|size| size.share));
        ensure!(shares.into_iter().all(|share| share.is_finite() && share > 0.0), "share: above 0");
        Ok(())
    }
}

impl Target {
    fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=MAX_POPULATION).contains(&self.population), "population: from 1 to {MAX_POPULATION}");
        ensure!((0.0..=5.0).contains(&self.zipf), "zipf: from 0 to 5");
        ensure!(self.certificate.is_some() == self.key.is_some(), "certificate and key belong together");
        ensure!(self.method.bytes().all(|b| b.is_ascii_uppercase()) && !self.method.is_empty(), "method");
        let line = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        ensure!(self.path.starts_with('/') && self.path.bytes().all(|b| b.is_ascii_graphic()), "path");
        ensure!(
            self.headers.iter().all(|(name, value)| line(name) && line(value)),
            "headers: one line of ASCII each"
        );
        let Expect { body, sha256, length, .. } = &self.expect;
        let given =
            usize::from(body.is_some()) + usize::from(sha256.is_some()) + usize::from(length.is_some());
        ensure!(given == 1, "expect: the status and one of body, sha256 and length");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        title = "t"
        [load]
        http = "2"
        [[phase]]
        arrivals = "closed"
        [[phase]]
        arrivals = "poisson"
        rate = "50%"
        [[phase]]
        arrivals = "constant"
        ramp = [100, "120%"]
        seconds = 3
        [target]
        address = "127.0.0.1:1"
        ca = "ca.pem"
        path = "/{n}"
        [target.expect]
        status = 200
        length = 5
    "#;

    #[test]
    fn shipped_scenarios_are_good_and_read_back() {
        for (name, _) in SHIPPED {
            let (scenario, folder) = Scenario::load(name).unwrap();
            assert_eq!(folder, PathBuf::new());
            let text = toml::to_string(&scenario).unwrap();
            assert_eq!(toml::to_string(&Scenario::parse(&text).unwrap()).unwrap(), text);
        }
        assert!(Scenario::load("no-such").unwrap_err().to_string().contains("verify"));
    }

    #[test]
    fn shares_are_of_the_closed_loop_before() {
        let scenario = Scenario::parse(GOOD).unwrap();
        assert_eq!(scenario.phases[0].runs(None).unwrap(), [Arrivals::Closed]);
        let open = |rate, poisson| Arrivals::Open { rate, poisson };
        assert_eq!(scenario.phases[1].runs(Some(900.0)).unwrap(), [open(Rate::Constant(450.0), true)]);
        assert_eq!(scenario.phases[2].runs(Some(900.0)).unwrap(), [open(Rate::Ramp(100.0, 1_080.0), false)]);
        assert!(scenario.phases[1].runs(None).is_err());
        assert_eq!(scenario.phases[2].duration(&scenario.load), Duration::from_secs(3));
        assert_eq!(scenario.load.protocol(), Protocol::Http2 { streams: 8 });
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (from, to, word) in [
            ("title", "surprise = 1\ntitle", "surprise"),
            ("http = \"2\"", "http = \"3\"", "3"),
            ("http = \"2\"", "connections = 0", "connections"),
            ("http = \"2\"", "streams = 129", "streams"),
            ("http = \"2\"", "http = \"2\"\nrequests_a_connection = 5", "HTTP/1.1"),
            ("seconds = 3", "seconds = 0", "seconds"),
            ("seconds = 3", "rate = 5", "one of rate"),
            ("\"closed\"", "\"closed\"\nrate = 5", "no rate"),
            ("\"closed\"", "\"constant\"\nrate = 5", "closed loop before"),
            ("\"closed\"", "\"constant\"", "one of rate"),
            ("\"50%\"", "\"50\"", "share"),
            ("\"50%\"", "-1", "above 0"),
            ("[target]", "[exchange]\nlicenses = 5\nmix = []\n[target]", "one of [exchange]"),
            ("/{n}", "n", "path"),
            ("ca = \"ca.pem\"", "ca = \"ca.pem\"\nkey = \"k\"", "belong together"),
            ("ca = \"ca.pem\"", "ca = \"ca.pem\"\nzipf = 9", "zipf"),
            ("ca = \"ca.pem\"", "ca = \"ca.pem\"\npopulation = 10000001", "population"),
            ("ca = \"ca.pem\"", "ca = \"ca.pem\"\nheaders = {a = \"b\\r\\n\"}", "headers"),
            ("length = 5", "", "expect"),
            ("length = 5", "length = 5\nsha256 = \"00\"", "expect"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = format!("{:#}", Scenario::parse(&GOOD.replacen(from, to, 1)).unwrap_err());
            assert!(error.contains(word), "{to}: {error}");
        }
    }
}
