//! Rows of a hosted resource: companies of nobody, brought in by the provider and granted to the approval system by rule. Also what
//! bringing in and searching cost, without sockets.
//!
//! The bench alone calls it, on folders of its own. A cut-off filling leaves a folder that is not populated.

use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use schemas::resource::Resource;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde::Serialize;
use serde_json::{Value, json};

use crate::baseline;
use crate::folder::{InProcess, organisation};
use crate::population::use_context;
use crate::submit::{points, resident_mib};

/// Rows of one request.
const BATCH_ROWS: u64 = 10_000;
/// Name and status that every row has beside its number.
const STATUS: &str = "在营";

/// The resource: the sample of companies, of class 1.
static RESOURCE: LazyLock<Resource> = LazyLock::new(|| {
    // The second sample is it; a test says so.
    Resource::samples().swap_remove(1)
});

/// How the answer about a row begins that is there.
pub static FOUND: LazyLock<String> =
    LazyLock::new(|| format!(r#"{{"resource":"{}","found":true,"record":{{"#, RESOURCE.code));
/// The bytes between that and the row's name.
pub const NAMED: &[u8] = br#""organisationName":""#;

/// The name in a row.
pub fn name(number: u64) -> String {
    format!("测试{number:08}有限公司")
}

/// A row.
fn row(number: u64) -> Value {
    json!({
        "creditCode": Synthetic::numbered_uscc(number).as_str(), "organisationName": name(number),
        "regionCode": "350102", "status": STATUS,
    })
}

/// A question for the row of a holder's number.
pub fn query(number: &str, context: Value) -> Value {
    json!({"resource": RESOURCE.code, "holder": {"typeCode": "001", "number": number}, "use": context})
}

/// The application under which they are asked for.
fn application(code: &str) -> Value {
    let context = use_context();
    json!({
        "resource": code, "itemCode": context["itemCode"], "itemName": context["itemName"],
        "purpose": context["cause"],
        "scope": {"fields": ["organisationName", "status"], "until": "2099-12-31"},
    })
}

/// Publishes the resource, has the approval system get it by rule, and brings so many rows in; `on` hears how long each batch took.
///
/// # Errors
/// Something is not permitted.
pub async fn fill(exchange: &InProcess, rows: u64, mut on: impl FnMut(Duration)) -> anyhow::Result<()> {
    let [provider, approval] = [organisation("provider")?, organisation("approval")?];
    publish(exchange, &RESOURCE).await?;
    let body = application(&RESOURCE.code).to_string().into_bytes();
    exchange.ask(Route::ApplicationMake, approval, body, Some("bench-application"), 201).await?;
    for first in (0..rows).step_by(BATCH_ROWS as usize) {
        let batch: Vec<Value> = (first..rows.min(first + BATCH_ROWS)).map(row).collect();
        let count = batch.len();
        let body = json!({"resource": RESOURCE.code, "firstLine": first + 1, "rows": batch}).to_string();
        let (key, started) = (format!("bench-rows-{first:012}"), Instant::now());
        let taken = exchange.ask(Route::RecordsIngest, provider, body.into_bytes(), Some(&key), 200).await?;
        on(started.elapsed());
        let taken: Value = serde_json::from_slice(&taken)?;
        ensure!(taken["accepted"] == count, "a row was not taken: {taken}");
    }
    Ok(())
}

async fn publish(exchange: &InProcess, resource: &Resource) -> anyhow::Result<()> {
    let provider = organisation("provider")?;
    let key = |step: &str| format!("bench-{step}-{}", resource.code);
    let body = json!({"resource": resource}).to_string().into_bytes();
    exchange.ask(Route::ResourceWrite, provider, body, Some(&key("write")), 200).await?;
    let body =
        json!({"resource": resource.code, "action": "publish", "reason": "压测"}).to_string().into_bytes();
    exchange.ask(Route::ResourceTransition, provider, body, Some(&key("publish")), 200).await?;
    Ok(())
}

/// The parts that are measured.
pub struct Plan {
    /// Rows brought in.
    pub rows: u64,
    /// Resources in the catalogue, beside the one with the rows.
    pub resources: u32,
    /// Searches of it, and questions which materials an item needs.
    pub searches: u32,
    /// Mappings from items and materials.
    pub mappings: u32,
}

/// The results.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// Rows brought in.
    pub rows: u64,
    /// Rows a second, of the time that the batches took.
    pub rows_a_second: f64,
    /// Bytes of the files with sealed rows, a row.
    pub row_bytes: f64,
    /// Rows a second that bare appends of the same files' bytes with a sync for each batch would bring.
    pub bare_rows_a_second: f64,
    /// The first over the last.
    pub ratio: f64,
    /// Growth of the resident memory, bytes a row; at a few rows it says nothing.
    pub resident_bytes_a_row: f64,
    /// Resources in the catalogue.
    pub resources: u32,
    /// A search of the catalogue, ms: p50, p99, highest.
    pub search_ms: [f64; 3],
    /// Mappings from items and materials.
    pub mappings: u32,
    /// A question which materials an item needs, ms: p50, p99, highest.
    pub materials_ms: [f64; 3],
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = self.search_ms;
        writeln!(f, "{} rows brought in without sockets, {BATCH_ROWS} a request", self.rows)?;
        writeln!(
            f,
            "  {:>9.0} rows/s of {:.0} bytes  bare {:>9.0}/s  ratio {:.2}  {:.0} bytes of memory a row",
            self.rows_a_second,
            self.row_bytes,
            self.bare_rows_a_second,
            self.ratio,
            self.resident_bytes_a_row
        )?;
        writeln!(f, "search of {} resources, ms: p50 {p50:.2}  p99 {p99:.2}  max {max:.2}", self.resources)?;
        let [p50, p99, max] = self.materials_ms;
        writeln!(
            f,
            "materials of an item, {} mappings, ms: p50 {p50:.2}  p99 {p99:.2}  max {max:.2}",
            self.mappings
        )
    }
}

/// Measures on an exchange of its own in an empty bench folder.
///
/// # Errors
/// Something is not permitted, or the file system's.
pub async fn measure(exchange: &InProcess, folder: &Path, plan: &Plan) -> anyhow::Result<Measured> {
    let before = resident_mib()?;
    let mut took = Duration::ZERO;
    fill(exchange, plan.rows, |batch| took += batch).await?;
    let grown = resident_mib()?.saturating_sub(before) << 20;
    let bytes = bytes_of(&folder.join("journal").join("rows"))?;
    let batches = plan.rows.div_ceil(BATCH_ROWS);
    let (bare_folder, batch_bytes) = (folder.to_owned(), bytes / batches.max(1));
    let bare = tokio::task::spawn_blocking(move || {
        baseline::run(&bare_folder, batch_bytes, None, Duration::from_secs(3))
    });
    let bare = bare.await??;
    let rows_a_batch = plan.rows as f64 / batches.max(1) as f64;
    let bare_rows_a_second = bare.appends as f64 / bare.elapsed.as_secs_f64() * rows_a_batch;
    let rows_a_second = plan.rows as f64 / took.as_secs_f64();
    catalogue(exchange, plan.resources).await?;
    let search_ms = search(exchange, plan).await?;
    let items = mappings(exchange, plan.mappings).await?;
    let materials_ms = materials(exchange, plan, items).await?;
    Ok(Measured {
        rows: plan.rows,
        rows_a_second,
        row_bytes: bytes as f64 / plan.rows as f64,
        bare_rows_a_second,
        ratio: rows_a_second / bare_rows_a_second,
        resident_bytes_a_row: grown as f64 / plan.rows as f64,
        resources: plan.resources,
        search_ms,
        mappings: items * MATERIALS,
        materials_ms,
    })
}

/// Publishes so many resources, whose words and domains differ as those of a city's catalogue do.
async fn catalogue(exchange: &InProcess, count: u32) -> anyhow::Result<()> {
    let samples = Resource::samples();
    for number in 0..count {
        let mut resource = samples[number as usize % samples.len()].clone();
        let (group, _) = resource.code.split_once('/').context("a resource's code")?;
        resource.code = format!("{group}/{:06}", 1_000 + number);
        resource.name = format!("{}{number}", resource.name);
        publish(exchange, &resource).await?;
    }
    Ok(())
}

async fn search(exchange: &InProcess, plan: &Plan) -> anyhow::Result<[f64; 3]> {
    let approval = organisation("approval")?;
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for number in 0..plan.searches {
        // In turn all, by words that one has, by a domain, and by words that nothing has.
        let body = match number % 4 {
            0 => json!({}),
            1 => json!({"words": format!("{}", number % plan.resources.max(1))}),
            2 => json!({"domain": "legal-person"}),
            _ => json!({"words": "没有的词"}),
        };
        let started = Instant::now();
        exchange.ask(Route::ResourceSearch, approval, body.to_string().into_bytes(), None, 200).await?;
        took.saturating_record(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(points(&took))
}

/// Materials of an item.
const MATERIALS: u32 = 10;
/// Rows of one import.
const IMPORTED_AT_ONCE: usize = 1_000;

fn material(place: u32) -> String {
    format!("BENCH{place:03}")
}

/// The code of an item of the approval system's.
fn item(place: u32) -> anyhow::Result<String> {
    Ok(format!("{}5500{place:09}", organisation("approval")?))
}

/// Brings so many mappings in, with their materials and items; how many items there are.
async fn mappings(exchange: &InProcess, count: u32) -> anyhow::Result<u32> {
    let items = count.div_ceil(MATERIALS);
    let codes: Vec<String> = (0..MATERIALS).map(material).collect();
    let materials = codes
        .iter()
        .map(|code| Ok(json!({"code": code, "name": "材料", "version": "1", "origin": "government"})));
    import(exchange, "materials", materials.collect()).await?;
    let approval = organisation("approval")?;
    let named = |place| {
        let code = item(place)?;
        Ok(
            json!({"code": code, "name": "事项", "version": "1", "department": approval, "materials": codes.join(" ")}),
        )
    };
    import(exchange, "items", (0..items).map(named).collect()).await?;
    let mapped = (0..items).flat_map(|place| codes.iter().map(move |code| (place, code)));
    let mapped =
        mapped.map(|(place, code)| Ok(json!({"item": item(place)?, "material": code, "mode": "drop"})));
    import(exchange, "mappings", mapped.collect()).await?;
    Ok(items)
}

async fn import(exchange: &InProcess, list: &str, rows: anyhow::Result<Vec<Value>>) -> anyhow::Result<()> {
    let operator = organisation("operator")?;
    for (place, rows) in rows?.chunks(IMPORTED_AT_ONCE).enumerate() {
        let first = place * IMPORTED_AT_ONCE + 1;
        let body = json!({"list": list, "source": "压测", "firstLine": first, "rows": rows}).to_string();
        let key = format!("bench-{list}-{place:08}");
        let taken = exchange.ask(Route::ItemsImport, operator, body.into_bytes(), Some(&key), 200).await?;
        let taken: Value = serde_json::from_slice(&taken)?;
        ensure!(taken["accepted"] == rows.len(), "a row was not taken: {taken}");
    }
    Ok(())
}

/// Asks which materials items need, one after another.
async fn materials(exchange: &InProcess, plan: &Plan, items: u32) -> anyhow::Result<[f64; 3]> {
    let approval = organisation("approval")?;
    let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for number in 0..plan.searches {
        let mut context = use_context();
        context["itemCode"] = item(number.wrapping_mul(7_919) % items)?.into();
        let body = json!({"use": context}).to_string().replace("\\u0001", "0");
        let started = Instant::now();
        let answer = exchange.ask(Route::ItemsMaterials, approval, body.into_bytes(), None, 200).await?;
        took.saturating_record(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        let answer: Value = serde_json::from_slice(&answer)?;
        ensure!(answer["spared"] == MATERIALS, "a material is asked for: {answer}");
    }
    Ok(points(&took))
}

/// Bytes of all files of a folder; 0 of one that is not there.
fn bytes_of(folder: &Path) -> anyhow::Result<u64> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { bytes_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder;

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_brought_in_and_found_by_the_question_of_a_run() {
        assert_eq!((RESOURCE.sharing_class, &*RESOURCE.key), (1, &["creditCode".to_owned()][..]));
        let folder = tempfile::tempdir().unwrap();
        let config = folder::prepare(folder.path(), false).await.unwrap();
        let exchange = InProcess::open(&config).await.unwrap();
        let plan = Plan { rows: 30, resources: 20, searches: 8, mappings: 30 };
        let measured = measure(&exchange, folder.path(), &plan).await.unwrap();
        assert!(measured.row_bytes > 50.0 && measured.bare_rows_a_second > 0.0, "{measured}");
        for number in [0, 29] {
            let body = query(Synthetic::numbered_uscc(number).as_str(), use_context());
            let approval = organisation("approval").unwrap();
            let body = body.to_string().replace("\\u0001", "0").into_bytes();
            let answer = exchange.ask(Route::RecordsQuery, approval, body, None, 200).await.unwrap();
            let row = answer.strip_prefix(FOUND.as_bytes()).unwrap().strip_prefix(NAMED).unwrap();
            assert!(row.starts_with(name(number).as_bytes()), "{number}");
        }
        exchange.close().await.unwrap();
    }
}
