//! How much later a row arrives through the exchange than from its provider, and whether a stalled provider delays the others.
//!
//! It measures and judges nothing but the answers: numbers go to `bench/notes/`. A round asks the provider directly, then
//! through the exchange; in the second part the rounds with and without a stalled provider alternate.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::Tls;
use schemas::routes::Route;
use serde::Serialize;
use serde_json::{Value, json};
use tests::called::{COMPANY, allow, question, resource, share};
use tests::{Call, Party, Provider, Reaction, Server, Setup, key};

/// Callers side by side in the second part.
const CALLERS: usize = 8;
/// Questions that a stalled provider holds: as many as the exchange asks at once of an address.
const HELD: usize = 64;
/// Deadline of a call, ms: the longest that a resource may have.
const DEADLINE_MS: u32 = 10_000;
/// Length of one entry and more, bytes, for the bare append.
const APPENDED: usize = 1 << 10;

/// Percentiles of one kind of question, ms.
#[derive(Clone, Copy, Serialize)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |part: usize| {
            let index = (took.len() * part / 1_000).min(took.len().saturating_sub(1));
            took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        Self { p50: at(500), p99: at(990), max: at(1_000) }
    }
}

/// A round of the first part.
#[derive(Serialize)]
struct Beside {
    provider: Spread,
    exchange: Spread,
    /// An append with `fdatasync` on the disk of the exchange.
    sync: Spread,
}

/// A round of the second part: the answers of the other provider.
#[derive(Serialize)]
struct Stalled {
    without: Spread,
    with: Spread,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    beside: Vec<Beside>,
    stalled: Vec<Stalled>,
    /// The medians of the rounds: exchange less provider, ms.
    added_ms: f64,
    /// The median round's p99 with a stalled provider ÷ without.
    stalled_ratio: f64,
}

/// Measures, and prints.
pub(crate) async fn run(rounds: u32, calls: u32, as_json: bool) -> anyhow::Result<()> {
    let server = Setup::new().start().await;
    let (quick, slow) = (Provider::of(&server), Provider::of(&server));
    let [of_quick, of_slow] =
        [(1, &quick), (2, &slow)].map(|(number, provider)| resource(number, &provider.url(), DEADLINE_MS));
    for (provider, shared) in [(&quick, &of_quick), (&slow, &of_slow)] {
        allow(&server, &provider.address(server.organisation("provider").as_str())).await;
        share(&server, shared, None).await;
    }

    let mut beside = Vec::new();
    let (mut direct, mut through) = (directly(&server, &quick)?, server.party("bank"));
    // The first round warms up.
    for round in 0..=rounds {
        let provider = one_by_one(&mut direct, calls, directly_asked).await?;
        let exchange = one_by_one(&mut through, calls, || question(&of_quick).key(&key())).await?;
        let sync = appends(&server, calls)?;
        if round > 0 {
            beside.push(Beside { provider, exchange, sync });
        }
    }

    let mut stalled = Vec::new();
    slow.react(Reaction::Stall);
    for _ in 0..rounds {
        let without = side_by_side(&server, &of_quick, calls).await?;
        let held = hold(&server, &slow, &of_slow).await;
        let with = side_by_side(&server, &of_quick, calls).await;
        let held_all = held.end(&slow).await;
        anyhow::ensure!(held_all, "the provider answered before it was released: take fewer calls");
        stalled.push(Stalled { without, with: with? });
    }

    let added_ms = median(beside.iter().map(|round| round.exchange.p50 - round.provider.p50));
    let stalled_ratio = median(stalled.iter().map(|round| round.with.p99 / round.without.p99));
    report(&Measured { beside, stalled, added_ms, stalled_ratio }, as_json)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The bank's certificate toward the provider itself.
fn directly(server: &Server, provider: &Provider) -> anyhow::Result<Party> {
    let read = |name: &str| std::fs::read(server.folder.join("pki/clients").join(name));
    let (certificate, key) = (read("bank.pem")?, read("bank.key")?);
    let tls = Tls::from_pem(provider.authorities.as_bytes(), Some((&certificate, &key)))?;
    let mut config = tls.config();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server.party("bank").at(config, ([127, 0, 0, 1], provider.port).into()))
}

/// The question as the exchange asks it.
fn directly_asked() -> Call {
    let body = json!({
        "resource": "3990010002/000001", "key": {"creditCode": COMPANY},
        "fields": ["organisationName", "regionCode", "status"], "intent": 1,
    });
    Call::new(Route::RecordsCall, &body).path("/records")
}

async fn one_by_one(party: &mut Party, calls: u32, call: impl Fn() -> Call) -> anyhow::Result<Spread> {
    let mut took = Vec::new();
    for _ in 0..calls {
        let call = call();
        let begun = Instant::now();
        let reply = party.try_send(&call).await?;
        took.push(begun.elapsed());
        anyhow::ensure!(reply.status == 200, "{}", reply.json);
    }
    Ok(Spread::of(took))
}

/// Appends and syncs on the disk of the exchange, so many.
fn appends(server: &Server, count: u32) -> anyhow::Result<Spread> {
    let mut file = tempfile::tempfile_in(&server.folder)?;
    let sync = |file: &mut File| -> std::io::Result<Duration> {
        let begun = Instant::now();
        file.write_all(&[0x5a; APPENDED])?;
        file.sync_data()?;
        Ok(begun.elapsed())
    };
    let took: Result<_, _> = (0..count).map(|_| sync(&mut file)).collect();
    Ok(Spread::of(took?))
}

async fn side_by_side(server: &Server, resource: &Value, calls: u32) -> anyhow::Result<Spread> {
    let callers = (0..CALLERS).map(|_| {
        let (mut party, resource) = (server.party("bank"), resource.clone());
        tokio::spawn(async move {
            let mut took = Vec::new();
            for _ in 0..calls {
                let call = question(&resource).key(&key());
                let begun = Instant::now();
                let reply = party.try_send(&call).await?;
                took.push(begun.elapsed());
                anyhow::ensure!(reply.status == 200, "{}", reply.json);
            }
            Ok(took)
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await??);
    }
    Ok(Spread::of(took))
}

/// Questions that a stalled provider holds.
struct Held {
    asking: Vec<tokio::task::JoinHandle<()>>,
    early: Arc<AtomicBool>,
}

impl Held {
    /// Lets them go; whether all of them were held until now.
    async fn end(self, provider: &Provider) -> bool {
        let held = !self.early.load(Ordering::SeqCst);
        provider.release();
        for asking in self.asking {
            let _ = asking.await;
        }
        held
    }
}

async fn hold(server: &Server, provider: &Provider, resource: &Value) -> Held {
    let early = Arc::new(AtomicBool::new(false));
    let before = provider.asked();
    let asking = (0..HELD).map(|_| {
        let (mut party, call, early) =
            (server.party("bank"), question(resource).key(&key()), Arc::clone(&early));
        tokio::spawn(async move {
            let _ = party.try_send(&call).await;
            early.store(true, Ordering::SeqCst);
        })
    });
    let asking = asking.collect();
    tests::eventually("the questions arrive", || async { (provider.asked() >= before + HELD).then_some(()) })
        .await;
    Held { asking, early }
}

fn report(measured: &Measured, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(measured)?);
        return Ok(());
    }
    let line = |name: &str, spread: &Spread| {
        println!("  {name:<24} p50 {:.3}  p99 {:.3}  max {:.3} ms", spread.p50, spread.p99, spread.max);
    };
    for (round, Beside { provider, exchange, sync }) in measured.beside.iter().enumerate() {
        println!("beside the provider, round {}", round + 1);
        line("provider, directly", provider);
        line("through the exchange", exchange);
        line("append + fdatasync", sync);
    }
    for (round, Stalled { without, with }) in measured.stalled.iter().enumerate() {
        println!("{CALLERS} callers, round {}", round + 1);
        line("without", without);
        line("one provider stalls", with);
    }
    println!(
        "added at the median {:.3} ms; p99 with a stalled provider ÷ without {:.2}",
        measured.added_ms, measured.stalled_ratio
    );
    Ok(())
}
