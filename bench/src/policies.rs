//! What policies in Cedar add to a decision: under the rules of the roles, under many over slow facts, whose answer is kept, and
//! under as many that read the request, which are evaluated each time. Without journal and network.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::ensure;
use exchange::config::Config;
use exchange::participant::Certified;
use hdrhistogram::Histogram;
use schemas::policy::ROLES;
use schemas::routes::Route;
use serde::Serialize;
use serde_json::{Value, json};

use crate::folder::{self, InProcess, organisation};
use crate::population::{self, Population, VerifyRequest, now_ms};
use crate::random::Random;
use crate::submit::points;

/// The parts that are measured.
pub struct Plan {
    /// Licenses with a grant in the state.
    pub grants: u64,
    /// Policies.
    pub policies: u32,
    /// Decisions of each set.
    pub decisions: u32,
}

/// The results: p50, p99 and highest of a decision of a verify request, µs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Licenses with a grant in the state.
    pub grants: u64,
    /// Policies beside the rules of the roles.
    pub policies: u32,
    /// Under the rules of the roles alone.
    pub roles_us: [f64; 3],
    /// Under the policies, from memory.
    pub cached_us: [f64; 3],
    /// Under policies that are evaluated each time.
    pub uncached_us: [f64; 3],
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { grants, policies, .. } = self;
        writeln!(f, "a verify request decided in memory, {grants} grants, µs")?;
        for (what, [p50, p99, max]) in [
            ("the rules of the roles".to_owned(), self.roles_us),
            (format!("{policies} policies, kept answers"), self.cached_us),
            (format!("{policies} policies, evaluated each time"), self.uncached_us),
        ] {
            writeln!(f, "  {what:<40} p50 {p50:>7.2}  p99 {p99:>7.2}  max {max:>9.2}")?;
        }
        Ok(())
    }
}

/// Policies of the kind that operators write: one for each organisation, about a purpose, a stage and an item.
fn policies(count: u32, reads: &str) -> String {
    let mut text = ROLES.to_owned();
    for number in 0..count {
        text.push_str(&format!(
            "forbid (principal, action == Action::\"verify\", resource)
when {{ context has stage && context.stage == \"决定\" && context has item && context.item like \"{number}*\" && {reads} }};
"
        ));
    }
    text
}

/// Measures in an empty folder.
///
/// # Errors
/// Something is not permitted, or the file system's.
pub async fn measure(config: &Config, folder: &Path, plan: &Plan) -> anyhow::Result<Measured> {
    let licenses = population::Plan { licenses: 2 * plan.grants, seed: 1, sizes: Vec::new(), rows: 0 };
    folder::populate(config, &licenses, 0, |_, _| {}).await?;
    let population = Population::load(folder, organisation("issuer")?)?;
    let exchange = InProcess::open(config).await?;
    let measured = in_turn(&exchange, &population, plan).await;
    // Also after a failure: the journal's threads must not outlive a temporary folder.
    exchange.close().await?;
    measured
}

async fn in_turn(exchange: &InProcess, population: &Population, plan: &Plan) -> anyhow::Result<Measured> {
    let roles_us = decided(exchange, population, plan)?;
    publish(exchange, &policies(plan.policies, "context.item != \"\"")).await?;
    let cached_us = decided(exchange, population, plan)?;
    publish(exchange, &policies(plan.policies, "context has caseNumber && context.caseNumber == \"\""))
        .await?;
    let uncached_us = decided(exchange, population, plan)?;
    Ok(Measured { grants: plan.grants, policies: plan.policies, roles_us, cached_us, uncached_us })
}

async fn publish(exchange: &InProcess, policies: &str) -> anyhow::Result<()> {
    let [one, other] = [organisation("operator")?, organisation("operator2")?];
    let key = hex::encode(verifier::sha256(&[policies.as_bytes()]));
    let body = json!({"kind": "publish-policies", "policies": policies, "reason": "压测"});
    let proposed =
        exchange.ask(Route::Propose, one, body.to_string().into_bytes(), Some(&key[..32]), 201).await?;
    let proposed: Value = serde_json::from_slice(&proposed)?;
    let body = json!({"proposal": proposed["proposal"], "policies": policies});
    exchange.ask(Route::Approve, other, body.to_string().into_bytes(), Some(&key[32..]), 200).await?;
    Ok(())
}

/// Decides requests about licenses with a grant, each another one.
fn decided(exchange: &InProcess, population: &Population, plan: &Plan) -> anyhow::Result<[f64; 3]> {
    let address = std::net::Ipv4Addr::LOCALHOST.into();
    let approval = Certified { organisation: organisation("approval")?, ends_at_ms: u64::MAX, address };
    let (mut random, mut body) = (Random::new(1), Vec::new());
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    for case in 0..plan.decisions {
        let number = 2 * (random.bits() % plan.grants);
        let mut identifier = vec![0; population::IDENTIFIER_BYTES];
        population.identifier(number, &mut identifier);
        let grant = population.right(number).map(|right| hex::encode(right.grant));
        VerifyRequest::body(&String::from_utf8(identifier)?, grant.as_deref()).write(case.into(), &mut body);
        let now_ms = now_ms();
        let started = Instant::now();
        let (is_permitted, _) = exchange.gateway.would_permit(Route::Verify, &approval, &body, now_ms);
        took.saturating_record(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        ensure!(is_permitted, "a use with a grant is denied");
    }
    Ok(points(&took))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn each_set_decides_as_the_roles_do() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder::prepare(folder.path(), false).await.unwrap();
        let plan = Plan { grants: 10, policies: 5, decisions: 20 };
        let measured = measure(&config, folder.path(), &plan).await.unwrap();
        assert!(measured.uncached_us[0] > 0.0, "{measured}");
    }
}
