//! Whether a caller without a right can tell by time what exists: pairs of requests that are both `not-permitted`, one
//! about a license that there is and one about none, decided and journaled by an exchange in this process.
//!
//! A network in between only adds noise, so what cannot be told here cannot be told over it.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use exchange::init;
use exchange::participant::Certified;
use http_body_util::Full;
use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::identifier::CertificateIdentifier;
use schemas::routes::Route;
use serde::Serialize;
use serde_json::{Value, json};

use crate::compare::median;
use crate::folder::{InProcess, organisation};
use crate::population::{self, Draft};
use crate::random::Random;

/// Licenses, and as many that there are not: taken in turn, so that no single one decides.
const LICENSES: usize = 64;
/// Share of the pairs at either end that counts as if it lay where the rest ends.
const TAIL: f64 = 0.05;
/// Beyond it a difference is told.
const TOLD: f64 = 3.0;

/// One comparison.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// What is asked for.
    pub case: &'static str,
    /// Time of a request about what there is, less that about what there is not: mean, µs.
    pub difference_micros: f64,
    /// The same of the pairs between the tails, µs.
    pub difference_without_tails_micros: f64,
    /// Median time of a request, µs.
    pub median_micros: f64,
    /// The mean over its standard error.
    pub z: f64,
    /// The same with both ends of the differences cut to where the rest ends.
    pub z_without_tails: f64,
}

impl Compared {
    fn told(&self) -> bool {
        self.z.abs() >= TOLD || self.z_without_tails.abs() >= TOLD
    }
}

/// All comparisons of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimingReport {
    /// Pairs of each comparison.
    pub pairs: usize,
    /// The comparisons.
    pub compared: Vec<Compared>,
}

impl TimingReport {
    /// Whether nothing can be told.
    pub fn passed(&self) -> bool {
        !self.compared.iter().any(Compared::told)
    }
}

impl fmt::Display for TimingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} pairs of refused requests, about what there is and what there is not", self.pairs)?;
        for one in &self.compared {
            writeln!(
                f,
                "  {:<26} of {:>7.1} µs: difference {:>7.2} µs, z {:>6.2}; without tails {:>6.2} µs, z {:>6.2}: {}",
                one.case,
                one.median_micros,
                one.difference_micros,
                one.z,
                one.difference_without_tails_micros,
                one.z_without_tails,
                if one.told() { "TOLD" } else { "not told" }
            )?;
        }
        writeln!(
            f,
            "{}",
            if self.passed() { "existence cannot be told by time" } else { "existence is told by time" }
        )
    }
}

/// Makes an exchange in `folder` and compares.
///
/// # Errors
/// The folder cannot be made, or an answer is another one than `not-permitted`.
pub async fn run(folder: &Path, pairs: usize) -> anyhow::Result<TimingReport> {
    let mut config = init::development(folder, None)?;
    config.limits.refusals_a_second = std::num::NonZeroU32::MAX;
    config.limits.refusal_burst = std::num::NonZeroU32::MAX;
    let exchange = InProcess::open(&config).await?;
    let natural = |seed| {
        let drafts = population::drafts(seed, 4 * LICENSES).into_iter();
        drafts.filter(|draft| draft.grantor.is_some()).take(LICENSES).collect::<Vec<_>>()
    };
    let mut there = Vec::with_capacity(LICENSES);
    for draft in natural(1) {
        let issued = exchange
            .ask(Route::Issue, organisation("issuer")?, draft.body.clone(), Some(&draft.key), 201)
            .await?;
        let issued: Value = serde_json::from_slice(&issued)?;
        there.push((draft, issued["identifier"].as_str().context("an identifier")?.to_owned()));
    }
    let by_identifier = |identifier: &str| body(json!({ "identifier": identifier }));
    let identifiers: Vec<Bytes> = there.iter().map(|(_, identifier)| by_identifier(identifier)).collect();
    let mut absent = Vec::with_capacity(LICENSES);
    for (number, (_, identifier)) in (0..).zip(&there) {
        let known: CertificateIdentifier = identifier.parse()?;
        let issuer = known.issuer().uscc().context("a whole issuer")?;
        let serial = population::serial('Z', number).parse()?;
        let none = CertificateIdentifier::new(known.type_code(), issuer, serial, 1)?;
        absent.push(by_identifier(&none.to_string()));
    }
    let mut numbers = Vec::with_capacity(LICENSES);
    let mut of_known = Vec::with_capacity(LICENSES);
    for (draft, _) in &there {
        numbers.push(by_number(draft, draft.grantor.as_ref(), None)?);
        of_known.push(by_number(draft, draft.grantor.as_ref(), Some(&no_number(draft)?))?);
    }
    // Nobody of these was ever named. All else is that of a license, so that no length differs.
    let nobodies = natural(2);
    let mut of_unknown = Vec::with_capacity(LICENSES);
    for (at, (draft, _)) in there.iter().enumerate() {
        let nobody = nobodies.iter().cycle().skip(at).find_map(|nobody| {
            let (one, other) = (nobody.grantor.as_ref()?, draft.grantor.as_ref()?);
            (one.type_code() == other.type_code()).then_some(one)
        });
        of_unknown.push(by_number(draft, nobody, None)?);
    }
    let identifiers_of = |bodies: &[Bytes]| -> anyhow::Result<Vec<Value>> {
        bodies.iter().map(|body| Ok(serde_json::from_slice::<Value>(body)?["license"].clone())).collect()
    };
    let (named, named_none) = (identifiers_of(&identifiers)?, identifiers_of(&absent)?);
    let retrieve = |license: &Value, _: &Value| {
        let more = json!({"mode": "fields", "fields": ["certificateNumber"]});
        used(license, more)
    };
    let question = |license: &Value, _: &Value| {
        let context = context();
        json!({"subject": {"type": "user", "id": context["userName"]}, "action": {"name": "verify"},
            "resource": {"type": "license", "id": license["identifier"]}, "context": {"use": context}})
    };
    let grantee = organisation("bank")?;
    let grant = |license: &Value, holder: &Value| {
        json!({"holder": holder, "grantee": grantee, "identifier": license["identifier"], "modes": ["verify"],
            "until": "2099-01-01T00:00:00Z"})
    };
    let code = |license: &Value, holder: &Value| {
        json!({"holder": holder, "identifier": license["identifier"], "fields": ["holderName"], "verifiers": "any",
            "seconds": 300})
    };
    // Everybody asks for the license of somebody else.
    let mut others = Vec::with_capacity(LICENSES);
    for (draft, _) in there.iter().cycle().skip(1).take(there.len()) {
        others.push(holder(draft.grantor.as_ref())?);
    }
    let all = |licenses: &[Value], make: &dyn Fn(&Value, &Value) -> Value| -> Vec<Bytes> {
        let both = licenses.iter().zip(&others);
        both.map(|(license, holder)| make(license, holder).to_string().into_bytes().into()).collect()
    };
    let sides = |make: &dyn Fn(&Value, &Value) -> Value| [all(&named, make), all(&named_none, make)];
    let cases: [(&'static str, Route, &str, [Vec<Bytes>; 2]); 7] = [
        ("by identifier", Route::Verify, "bank", [identifiers, absent]),
        ("by number, holder unknown", Route::Verify, "bank", [numbers.clone(), of_unknown]),
        ("by number, holder known", Route::Verify, "bank", [numbers, of_known]),
        ("fields", Route::Retrieve, "bank", sides(&retrieve)),
        ("a question before a use", Route::Evaluation, "bank", sides(&question)),
        ("a grant, of another's", Route::GrantCreate, "portal", sides(&grant)),
        ("a code, of another's", Route::CodeMint, "portal", sides(&code)),
    ];
    let mut random = Random::new(39);
    let mut compared = Vec::new();
    for (case, route, caller, [there, absent]) in cases {
        let caller = Certified {
            organisation: organisation(caller)?,
            ends_at_ms: u64::MAX,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let (mut differences, mut times) = (Vec::with_capacity(pairs), Vec::with_capacity(pairs));
        // The first ones find caches cold.
        for pair in 0..pairs + pairs / 10 {
            let at = pair % there.len();
            let both = [there.get(at), absent.get(at)];
            let first = usize::from(random.bits() & 1 == 1);
            let mut took = Vec::with_capacity(2);
            for side in [first, 1 - first] {
                let asked = both.get(side).copied().flatten().context("a request")?;
                took.push((side, ask(&exchange, route, &caller, asked).await?));
            }
            took.sort_unstable_by_key(|(side, _)| *side);
            if let [(_, there), (_, absent)] = took[..]
                && pair >= pairs / 10
            {
                differences.push(there - absent);
                times.push(absent);
            }
        }
        compared.push(Compared {
            case,
            difference_micros: mean(&differences),
            difference_without_tails_micros: mean(rest(&mut differences.clone(), TAIL)),
            median_micros: median(times),
            z: z(&differences, 0.0),
            z_without_tails: z(&differences, TAIL),
        });
    }
    exchange.close().await?;
    Ok(TimingReport { pairs, compared })
}

/// A number that no license has, with as many characters as the ones that there are.
fn no_number(draft: &Draft) -> anyhow::Result<String> {
    let issue: Value = serde_json::from_slice(&draft.body)?;
    let number = issue["license"]["certificateNumber"].as_str().context("a number")?;
    Ok(number.chars().map(|character| if character.is_ascii_digit() { '9' } else { character }).collect())
}

fn context() -> Value {
    let mut context = population::use_context();
    context["businessCode"] = json!("BENCH000000000000");
    context
}

fn body(license: Value) -> Bytes {
    json!({"license": license, "use": context()}).to_string().into_bytes().into()
}

/// A use of a license with further members.
fn used(license: &Value, mut more: Value) -> Value {
    more["license"] = license.clone();
    more["use"] = context();
    more
}

fn holder(holder: Option<&HolderRef>) -> anyhow::Result<Value> {
    let holder = holder.context("a natural person")?;
    Ok(json!({"typeCode": holder.type_code().as_str(), "number": holder.number()}))
}

/// A request by a draft's type, a holder, and a number: the draft's own where none is given.
fn by_number(draft: &Draft, holder: Option<&HolderRef>, number: Option<&str>) -> anyhow::Result<Bytes> {
    let issue: Value = serde_json::from_slice(&draft.body)?;
    let license = &issue["license"];
    Ok(body(json!({
        "typeCode": license["typeCode"],
        "certificateNumber": number.map_or_else(|| license["certificateNumber"].clone(), Value::from),
        "holder": self::holder(holder)?,
    })))
}

/// Asks once; how long the answer took, µs.
async fn ask(exchange: &InProcess, route: Route, caller: &Certified, body: &Bytes) -> anyhow::Result<f64> {
    let mut request = hyper::Request::post("/").header("content-type", "application/json");
    if route.changes_state() {
        // A refusal binds no key, so one does for all.
        request = request.header("idempotency-key", "bench-timing-0001");
    }
    let request = request.body(Full::new(body.clone()))?;
    let begun = Instant::now();
    let answer = exchange.gateway.handle(route, caller, request, None).await;
    let took = begun.elapsed();
    ensure!(answer.code == Code::NotPermitted, "{}: {}", route.name(), answer.code.name());
    Ok(took.as_secs_f64() * 1e6)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean of paired differences over its standard error, with a share of either end drawn in to where the rest ends
/// (winsorised, as Tukey and McLaughlin have it for the trimmed mean).
fn z(differences: &[f64], tail: f64) -> f64 {
    let mut sorted = differences.to_vec();
    let rest = rest(&mut sorted, tail);
    let (Some(low), Some(high)) = (rest.first(), rest.last()) else { return 0.0 };
    let drawn: Vec<f64> = differences.iter().map(|one| one.clamp(*low, *high)).collect();
    let middle = mean(&drawn);
    let variance = drawn.iter().map(|one| (one - middle).powi(2)).sum::<f64>() / (drawn.len() - 1) as f64;
    let error = variance.sqrt() / (1.0 - 2.0 * tail) / (drawn.len() as f64).sqrt();
    mean(rest) / error
}

/// What is between the tails, sorted.
fn rest(differences: &mut [f64], tail: f64) -> &[f64] {
    differences.sort_unstable_by(f64::total_cmp);
    let cut = (differences.len() as f64 * tail) as usize;
    differences.get(cut..differences.len() - cut).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_through_noise_and_none_is_not() {
        let mut random = Random::new(1);
        let mut noise =
            || 100.0 * (random.unit() - random.unit()) + 5_000.0 * f64::from(random.unit() < 0.01);
        let none: Vec<f64> = (0..20_000).map(|_| noise() - noise()).collect();
        let some: Vec<f64> = none.iter().map(|one| one + 5.0).collect();
        assert!(
            z(&none, TAIL).abs() < TOLD && z(&none, 0.0).abs() < TOLD,
            "{} {}",
            z(&none, TAIL),
            z(&none, 0.0)
        );
        assert!(z(&some, TAIL) > TOLD, "{}", z(&some, TAIL));
    }
}
