//! Open data (公共数据开放) on the public listener: the catalogue of open resources, and their rows as CSV or JSON, a page an answer.
//!
//! The router calls it. It reads state and hosted rows and keeps nothing, so a crash leaves nothing.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use ledger::{DocumentKind, Key, Label, Ledger, Mark, ReadError};
use schemas::license_type::FieldKind;
use schemas::resource::{Field, Resource};
use schemas::sharing::ResourceState;
use serde_json::{Map, Value, json};

use crate::gateway::Gateway;
use crate::moment::now_ms;
use crate::shared::Shared;
use crate::sharing::quality;
use crate::sharing::region::StoredRow;
use crate::sharing::resource::{Listed, resource_key};

/// Most rows of a page, and most of their bytes, sealed: a page is whole in memory. The last row may be as long as a row can be.
const MAX_ROWS: usize = 5_000;
const MAX_PAGE_BYTES: usize = 4 << 20;
/// Most resources of a page of the catalogue.
const MAX_LISTED: usize = 200;
/// A resource that is withdrawn or suspended is gone at once, so every use of a kept copy asks again.
const CACHED: &str = "no-cache";
const CSV: &str = "text/csv; charset=utf-8; header=present";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// `GET /v1/open`: the open resources.
pub(crate) async fn catalogue(
    State(shared): State<Shared>,
    Extension(address): Extension<IpAddr>,
    uri: Uri,
) -> Response {
    let Ok(after) = after::<16>(&uri) else { return no_cursor() };
    let gateway = shared.gateway.clone();
    let listed = shared.gateway.lanes().public.run(address, move || list(&gateway, after.as_ref()));
    match listed.await {
        Ok(page) => typed(page.to_string(), JSON),
        Err(_) => unavailable(),
    }
}

/// `GET /v1/open/{class}/{order}`: a resource's entry in the catalogue; with `.csv` or `.json` behind it, a page of its rows.
pub(crate) async fn resource(
    State(shared): State<Shared>,
    Extension(address): Extension<IpAddr>,
    Path((class, order)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let (order, form) = match order.split_once('.') {
        None => (order.as_str(), None),
        Some((order, "csv")) => (order, Some(Form::Csv)),
        Some((order, "json")) => (order, Some(Form::Json)),
        Some(_) => return StatusCode::NOT_FOUND.into_response(),
    };
    let Ok(after) = after::<24>(&uri) else { return no_cursor() };
    let asked = Asked { code: format!("{class}/{order}"), form, after: after.map(mark) };
    let gateway = shared.gateway.clone();
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok()).map(str::to_owned);
    let answer = shared.gateway.lanes().public.run(address, move || asked.answer(&gateway, known.as_deref()));
    answer.await.unwrap_or_else(|_| unavailable())
}

/// The resource with a code, if it is open.
///
/// # Errors
/// It is gone for good, or there is none.
fn open(gateway: &Gateway, code: &str) -> Result<(u32, std::sync::Arc<Listed>, Label), StatusCode> {
    let key = resource_key(gateway.ledger().keyed(), code);
    let (_, version, listed) = gateway.resources().get(gateway.ledger(), &key, |_, key| *key);
    let listed = listed.filter(|listed| listed.resource.is_open()).ok_or(StatusCode::NOT_FOUND)?;
    match listed.state {
        ResourceState::Published | ResourceState::Changed => {
            let label = listed.rows_label().ok_or(StatusCode::NOT_FOUND)?;
            Ok((version, listed, label))
        }
        // A draft that was withdrawn was never open.
        ResourceState::Withdrawn if listed.label.is_some() => Err(StatusCode::GONE),
        ResourceState::Draft | ResourceState::Suspended | ResourceState::Withdrawn => {
            Err(StatusCode::NOT_FOUND)
        }
    }
}

fn list(gateway: &Gateway, after: Option<&Key>) -> Value {
    let ledger = gateway.ledger();
    let (mut rows, mut last, mut next) = (Vec::new(), None::<Key>, None);
    for (key, _) in ledger.state().documents(DocumentKind::Resource) {
        if after.is_some_and(|after| key <= *after) {
            continue;
        }
        let (_, _, listed) = gateway.resources().get(ledger, &key, |_, key| *key);
        let Some(listed) = listed.filter(|listed| listed.state.is_live() && listed.resource.is_open()) else {
            continue;
        };
        if rows.len() == MAX_LISTED {
            next = last.map(hex::encode);
            break;
        }
        rows.push(entry(ledger, &listed));
        last = Some(key);
    }
    json!({"resources": rows, "next": next})
}

/// A resource as the catalogue of open data shows it: nothing of its sharing, and the fields that are open.
fn entry(ledger: &Ledger, listed: &Listed) -> Value {
    let resource = &listed.resource;
    let path = path(&resource.code);
    json!({
        "resource": resource.code, "name": resource.name, "summary": resource.summary, "provider": listed.provider,
        "domain": resource.domain.name(), "domainName": resource.domain.chinese(),
        "updateCycle": resource.update_cycle.name(), "fields": resource.open_fields().collect::<Vec<_>>(),
        "quality": quality::quality(ledger, listed, now_ms()),
        "csv": format!("{path}.csv"), "json": format!("{path}.json"),
    })
}

fn path(code: &str) -> String {
    format!("/v1/open/{code}")
}

#[derive(Clone, Copy)]
enum Form {
    Csv,
    Json,
}

struct Asked {
    code: String,
    /// `None`: the entry alone.
    form: Option<Form>,
    after: Option<Mark>,
}

impl Asked {
    fn answer(&self, gateway: &Gateway, known: Option<&str>) -> Response {
        self.read(gateway, known).unwrap_or_else(|error| match error {
            Wrong::Status(status) => status.into_response(),
            Wrong::Unreadable(error) => {
                tracing::error!(%error, "rows of an open resource cannot be read");
                unavailable()
            }
        })
    }

    fn read(&self, gateway: &Gateway, known: Option<&str>) -> Result<Response, Wrong> {
        let ledger = gateway.ledger();
        let (version, listed, label) = open(gateway, &self.code)?;
        let resource = &listed.resource;
        let Some(form) = self.form else {
            return Ok(cached(typed(entry(ledger, &listed).to_string(), JSON)));
        };
        // The rows of later than this change the tag: a copy is never taken for newer than it is.
        let tag = tag(ledger, &label, version, self, form);
        let fresh = quality::freshness(ledger, resource, &label, now_ms());
        let modified = fresh
            .last_ms
            .map(|ms| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)));
        let same = |known: &str| {
            known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag || known.trim() == "*")
        };
        let mut response = if known.is_some_and(same) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let Page { rows, next } = page(ledger, &label, self.after.as_ref())?;
            // Rows of a resource that was closed meanwhile do not leave.
            if open(gateway, &self.code)?.0 != version {
                return Err(Wrong::Status(StatusCode::SERVICE_UNAVAILABLE));
            }
            let path = path(&self.code);
            let next = next.map(|mark| encode(&mark));
            let (body, media_type, end) = match form {
                Form::Csv => (csv(resource, &rows)?, CSV, "csv"),
                Form::Json => {
                    let rows: Vec<Value> = rows.iter().map(|row| object(resource, row)).collect();
                    let page = json!({"resource": entry(ledger, &listed), "rows": rows, "next": next});
                    (page.to_string().into_bytes(), JSON, "json")
                }
            };
            let mut links = format!("<{path}>; rel=\"describedby\"");
            if let Some(next) = next {
                links.push_str(&format!(", <{path}.{end}?after={next}>; rel=\"next\""));
            }
            with(typed(body, media_type), header::LINK, &links)
        };
        response = with(response, header::ETAG, &tag);
        if let Some(modified) = modified {
            response = with(response, header::LAST_MODIFIED, &modified);
        }
        Ok(cached(response))
    }
}

enum Wrong {
    Status(StatusCode),
    Unreadable(String),
}

impl From<StatusCode> for Wrong {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

impl From<ReadError> for Wrong {
    fn from(error: ReadError) -> Self {
        match error {
            // Withdrawn while it was read.
            ReadError::KeyGone => Self::Status(StatusCode::GONE),
            error => Self::Unreadable(error.to_string()),
        }
    }
}

/// A tag of a page: of the definition, the segments that the rows are in, and the part that is asked for.
fn tag(ledger: &Ledger, label: &Label, version: u32, asked: &Asked, form: Form) -> String {
    let form = match form {
        Form::Csv => [1],
        Form::Json => [2],
    };
    let after = asked.after.as_ref().map(encode).unwrap_or_default();
    let parts: [&[u8]; 5] = [
        asked.code.as_bytes(),
        &version.to_be_bytes(),
        &form,
        after.as_bytes(),
        &ledger.rows().version(label),
    ];
    format!("\"{}\"", hex::encode(&verifier::sha256(&parts)[..16]))
}

struct Page {
    rows: Vec<StoredRow>,
    /// Where the next page begins.
    next: Option<Mark>,
}

fn page(ledger: &Ledger, label: &Label, after: Option<&Mark>) -> Result<Page, Wrong> {
    let places = ledger.rows().rows_of(label, after, MAX_ROWS + 1)?;
    let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
    for place in &places {
        if rows.len() == MAX_ROWS || bytes >= MAX_PAGE_BYTES {
            return Ok(Page { rows, next: last });
        }
        let plain = ledger.rows().read(place)?;
        bytes += plain.len();
        let row = StoredRow::decode(&plain);
        rows.push(row.ok_or_else(|| Wrong::Unreadable("a row is malformed".to_owned()))?);
        last = Some(place.mark());
    }
    Ok(Page { rows, next: None })
}

fn object(resource: &Resource, row: &StoredRow) -> Value {
    let fields = resource
        .open_fields()
        .filter_map(|field| row.value(&field.key).map(|value| (field.key.clone(), Value::from(value))));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Rows as CSV (RFC 4180) under a line of field keys.
fn csv(resource: &Resource, rows: &[StoredRow]) -> Result<Vec<u8>, Wrong> {
    let failed = |error: &dyn std::fmt::Display| Wrong::Unreadable(error.to_string());
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let fields: Vec<&Field> = resource.open_fields().collect();
    writer.write_record(fields.iter().map(|field| &field.key)).map_err(|error| failed(&error))?;
    for row in rows {
        let cells = fields.iter().map(|field| cell(field, row.value(&field.key).unwrap_or_default()));
        writer.write_record(cells).map_err(|error| failed(&error))?;
    }
    writer.into_inner().map_err(|error| failed(&error))
}

/// A value in CSV. A text that a spreadsheet program would take for a formula gets an apostrophe in front; JSON has it as it is.
fn cell(field: &Field, value: &str) -> String {
    let is_text = match field.kind {
        FieldKind::Text | FieldKind::Address | FieldKind::HolderNumber | FieldKind::Code { .. } => true,
        FieldKind::Date
        | FieldKind::PartialDate
        | FieldKind::Number
        | FieldKind::CitizenNumber
        | FieldKind::Uscc => false,
    };
    let quote = is_text
        && value
            .starts_with(['=', '+', '-', '@', '\t', '\r', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    if quote { format!("'{value}") } else { value.to_owned() }
}

/// The bytes of `after`, if it is given.
///
/// # Errors
/// It is no cursor.
fn after<const N: usize>(uri: &Uri) -> Result<Option<[u8; N]>, ()> {
    let given = uri.query().unwrap_or_default().split('&').find_map(|part| part.strip_prefix("after="));
    let Some(given) = given else { return Ok(None) };
    let mut after = [0; N];
    hex::decode_to_slice(given, &mut after).map_err(|_| ()).map(|()| Some(after))
}

fn mark(bytes: [u8; 24]) -> Mark {
    let mut mark = Mark { sequence: 0, row: [0; 16] };
    let (sequence, row) = bytes.split_at(8);
    mark.sequence = sequence.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    mark.row.copy_from_slice(row);
    mark
}

fn encode(mark: &Mark) -> String {
    hex::encode([&mark.sequence.to_be_bytes()[..], &mark.row].concat())
}

fn typed(body: impl Into<Body>, media_type: &'static str) -> Response {
    with(Response::new(body.into()), header::CONTENT_TYPE, media_type)
}

fn with(mut response: Response, name: header::HeaderName, value: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn cached(response: Response) -> Response {
    with(response, header::CACHE_CONTROL, CACHED)
}

/// The refusal of a cursor. It has a body: a 400 without one is hyper's own, after which a connection ends.
fn no_cursor() -> Response {
    let mut response = typed("after: not a `next` of this list\n", TEXT);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

fn unavailable() -> Response {
    with(StatusCode::SERVICE_UNAVAILABLE.into_response(), header::RETRY_AFTER, "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let of = Mark { sequence: 0x0102_0304_0506_0708, row: [9; 16] };
        let uri: Uri = format!("/v1/open/a/b.csv?x=1&after={}", encode(&of)).parse().expect("a path");
        assert_eq!(after::<24>(&uri).expect("a cursor").map(mark), Some(of));
        let bad: Uri = "/v1/open/a/b.csv?after=00".parse().expect("a path");
        assert!(after::<24>(&bad).is_err());
        assert!(after::<24>(&"/".parse().expect("a path")).expect("none").is_none());
    }

    #[test]
    fn a_text_that_looks_like_a_formula_is_none_and_a_number_stays_one() {
        let resource = Resource::samples().remove(1);
        let text = resource.fields[1].clone();
        let number = Field { kind: FieldKind::Number, ..text.clone() };
        for formula in ["=1+1", "+1", "-1", "@x", "\u{ff1d}1"] {
            assert_eq!(cell(&text, formula), format!("'{formula}"));
        }
        assert_eq!((cell(&number, "-1").as_str(), cell(&text, "名-1").as_str()), ("-1", "名-1"));
        let row = StoredRow::decode(&StoredRow::encode(
            0,
            &[
                ("organisationName".to_owned(), "=甲,\"乙\"\n".to_owned()),
                ("none".to_owned(), "x".to_owned()),
            ],
            &[],
        ));
        let written = csv(&resource, &[row.expect("a row")]).ok().expect("CSV");
        let mut reader = csv::Reader::from_reader(written.as_slice());
        let keys: Vec<&str> = resource.open_fields().map(|field| field.key.as_str()).collect();
        assert_eq!(reader.headers().expect("keys").iter().collect::<Vec<_>>(), keys);
        let record = reader.records().next().expect("a row").expect("CSV");
        assert_eq!((&record[0], &record[1]), ("", "'=甲,\"乙\"\n"));
        assert_eq!(reader.records().count(), 0);
    }
}
