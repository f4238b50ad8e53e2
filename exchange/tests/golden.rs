//! What every data route answers and journals, permitted and refused: each answer, its record, what its holders are told,
//! compared with `golden/answers.txt`. Random and dated parts are masked; the same value has the same mask within one call.
//!
//! `BLESS=1 cargo test -p exchange --test golden` writes the file anew.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use exchange::gateway::Gateway;
use exchange::gateway::answer::Answer;
use exchange::init::{self, PARTICIPANTS, development_organisations};
use exchange::moment::now_ms;
use exchange::opening::{self, Trusted};
use exchange::participant::Certified;
use exchange::shed::Shed;
use http_body_util::Full;
use ledger::{Ledger, OpenedEntry};
use schemas::codes::{Code, Reason};
use schemas::date::{Date, rfc3339};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::license_type::LicenseType;
use schemas::resource::Resource;
use schemas::routes::Route;
use schemas::synthetic::{Synthetic, SyntheticLicense};
use serde_json::{Value, json};
use tempfile::TempDir;
use verifier::leaf::Open;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/answers.txt");
/// 居民身份证, 营业执照.
const NATURAL: &str = "11100000DE0000022B002";
const LEGAL: &str = "11100000MB0341032Y001";
/// Nobody may hold this many.
const SEED: u64 = 16;

struct House {
    gateway: Gateway,
    ledger: Ledger,
    synthetic: Synthetic,
    calls: u32,
    text: String,
    _folder: TempDir,
}

/// A license to be issued, or that was.
struct Draft {
    license_type: LicenseType,
    serial: String,
    license: SyntheticLicense,
}

impl Draft {
    fn value(&self) -> Value {
        self.license.request(&self.license_type.code, &self.serial)
    }

    fn holder(&self) -> Value {
        named(&self.license.holders[0].1)
    }

    fn number(&self) -> Value {
        json!({"typeCode": self.license_type.code.as_str(), "certificateNumber": self.license.certificate_number,
            "holder": self.holder()})
    }
}

fn named(holder: &HolderRef) -> Value {
    json!({"typeCode": holder.type_code().as_str(), "number": holder.number()})
}

fn organisation(name: &str) -> Uscc {
    let at = PARTICIPANTS.iter().position(|participant| participant.name == name).unwrap();
    development_organisations()[at]
}

fn in_case(number: &str) -> Value {
    let mut used = used();
    used["businessCode"] = json!(number);
    used
}

fn used() -> Value {
    json!({
        "userName": "测试经办人", "itemCode": "11440100MB2D00000000044010000001", "itemName": "测试事项",
        "businessCode": "CS20260001", "cause": "核验申请材料", "stage": "受理",
    })
}

impl House {
    async fn open(refusals: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = init::development(folder.path(), None).unwrap();
        let keys = opening::ledger_keys(&opening::key_folder(&config).unwrap()).unwrap();
        let (ledger, _) = Ledger::open(opening::ledger_options(&config), keys).unwrap();
        init::register_development(&ledger, &init::development_register()).await.unwrap();
        let Trusted { trust, signers, .. } = Trusted::load(&config, 0).unwrap();
        let gateway = Gateway::new(
            ledger.clone(),
            signers,
            trust,
            Shed::new(NonZeroU32::MIN, NonZeroU32::new(refusals).unwrap()),
            0,
        );
        let synthetic = Synthetic::new(SEED);
        Self { gateway, ledger, synthetic, calls: 0, text: String::new(), _folder: folder }
    }

    fn draft(&mut self, code: &str) -> Draft {
        let license_type = LicenseType::builtin()
            .into_iter()
            .find(|license_type| license_type.code.as_str() == code)
            .unwrap();
        let today = Date::at(i64::try_from(now_ms() / 1_000).unwrap());
        let mut license = self.synthetic.license(&license_type, today);
        // No end, whatever the day; or one that is far ahead.
        license.valid_from = "2020-01-01".parse().unwrap();
        license.issue_date = license.valid_from;
        license.valid_until = license.valid_until.map(|_| "2099-12-31".parse().unwrap());
        Draft { license_type, serial: self.synthetic.serial().as_str().to_owned(), license }
    }

    /// Sends a request, and writes down all that comes of it.
    async fn call(&mut self, what: &str, route: Route, by: &str, body: &Value) -> Value {
        self.calls += 1;
        let key = format!("golden-{:016}", self.calls);
        self.keyed(what, route, by, body, &key).await
    }

    async fn keyed(&mut self, what: &str, route: Route, by: &str, body: &Value, key: &str) -> Value {
        let bytes = Bytes::from(serde_json::to_vec(body).unwrap());
        let mut request = hyper::Request::post(route.path().unwrap_or("/v1/none"))
            .header("content-type", "application/json");
        if route.changes_state() {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(bytes)).unwrap();
        let caller = Certified {
            organisation: organisation(by),
            ends_at_ms: u64::MAX,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let misrouted = (route == Route::None).then_some(Code::NoSuchRoute);
        let answer = self.gateway.handle(route, &caller, request, misrouted).await;
        let (cut, receipt) = verifier::receipt::cut(&answer.body).unwrap();
        let entry = self.ledger.entry(receipt.index).unwrap();
        let mut masks = Masks::default();
        let mut text = format!("{what}: {} by {by}\n", route.name());
        writeln!(
            text,
            "  {} {} {}",
            answer.status,
            answer.media_type,
            masks.mask(&String::from_utf8(cut.clone()).unwrap())
        )
        .unwrap();
        for line in self.entry_lines(&entry) {
            writeln!(text, "  {}", masks.mask(&line)).unwrap();
        }
        self.text.push_str(&text);
        self.text.push('\n');
        serde_json::from_slice(&cut).unwrap()
    }

    /// Sends a body of verifications in lines.
    async fn in_lines(&self, by: &str, body: &str) -> Answer {
        self.sent(by, Route::Verify, "application/x-ndjson", body).await
    }

    async fn sent(&self, by: &str, route: Route, media_type: &str, body: &str) -> Answer {
        let request = hyper::Request::post(route.path().unwrap()).header("content-type", media_type);
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let caller = Certified {
            organisation: organisation(by),
            ends_at_ms: u64::MAX,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        self.gateway.handle(route, &caller, request, None).await
    }

    fn entry_lines(&self, entry: &OpenedEntry) -> Vec<String> {
        let record = &entry.record;
        let open = Open::parse(&entry.committed.open).unwrap();
        let mut lines = vec![format!(
            "open: route {} decision {} code {} labels {:?} body {}",
            open.route,
            open.decision,
            open.code,
            open.labels,
            open.request_digest != [0; 32]
        )];
        let reason = Reason::ALL.iter().find(|reason| reason.number() == record.reason).unwrap().name();
        lines.push(format!(
            "record: reason {reason} concerned {:?} release {}",
            record.concerned, record.release_ms
        ));
        lines.extend(
            record.new_holders.iter().map(|new| format!("new holder: {:?} {}", new.label, new.epoch)),
        );
        lines.extend(record.licenses.iter().map(|license| format!("license: {license:?}")));
        lines.extend(record.grants.iter().map(|grant| format!("grant: {grant:?}")));
        for document in &record.documents {
            let value = match std::str::from_utf8(&document.value) {
                Ok(text) => text.to_owned(),
                Err(_) => format!("<{} bytes>", document.value.len()),
            };
            lines
                .push(format!("document: {} {:?} {} {value}", document.kind, document.key, document.version));
        }
        lines.extend(record.counters.iter().map(|counter| format!("counter: {counter:?}")));
        lines.extend(record.idempotency.iter().map(|bound| format!("bound: part {}", bound.answer_part)));
        lines.extend(record.erased.iter().map(|label| format!("erased: {label:?}")));
        lines.push(format!("links: {} parts: {}", entry.links.len(), entry.parts.len()));
        for part in &entry.parts {
            let Ok(plaintext) = self.ledger.open_subject(*part) else {
                lines.push("part: its key is gone".to_owned());
                continue;
            };
            let subject = flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(&plaintext).unwrap();
            let told = subject.told().map(|told| String::from_utf8(told.bytes().to_vec()).unwrap());
            lines.push(format!(
                "part: told {} user {:?} detail {:?} envelope {} answer {}",
                told.unwrap_or_default(),
                subject.user_name(),
                subject.detail(),
                subject.envelope().is_some(),
                subject.answer().is_some()
            ));
        }
        lines
    }
}

/// Random and dated parts of a text, by what they are.
#[derive(Default)]
struct Masks(Vec<String>);

impl Masks {
    fn number(&mut self, value: &str) -> usize {
        let at = self.0.iter().position(|known| known == value);
        at.unwrap_or_else(|| {
            self.0.push(value.to_owned());
            self.0.len() - 1
        })
    }

    fn mask(&mut self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            // A list of bytes.
            if let Some(list) = rest.strip_prefix('[')
                && let Some(end) = list.find(']')
                && let Ok(bytes) = list[..end].split(", ").map(str::parse).collect::<Result<Vec<u8>, _>>()
                && bytes.len() >= 8
            {
                let shown = match std::str::from_utf8(&bytes) {
                    Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => text.to_owned(),
                    _ => format!("<{} #{}>", bytes.len(), self.number(&hex::encode(&bytes))),
                };
                out.push_str(&shown);
                rest = &list[end + 1..];
                continue;
            }
            let word = |of: fn(char) -> bool| rest.find(|c| !of(c)).unwrap_or(rest.len());
            let run = word(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
            let found = &rest[..run];
            let is_hex =
                |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
            if run >= 100 && BASE64.decode(found).is_ok() {
                out.push_str("<base64>");
                rest = &rest[run..];
            } else if run == 44 && found.ends_with('=') && BASE64.decode(found).is_ok() {
                out.push_str("<digest>");
                rest = &rest[run..];
            } else if run >= 16 && is_hex(found) && found.bytes().any(|byte| byte.is_ascii_lowercase()) {
                write!(out, "<hex {run} #{}>", self.number(found)).unwrap();
                rest = &rest[run..];
            } else if let Some(length) = moment(rest) {
                out.push_str("<moment>");
                rest = &rest[length..];
            } else if run == 13 && found.starts_with("1") && found.bytes().all(|byte| byte.is_ascii_digit()) {
                out.push_str("<ms>");
                rest = &rest[run..];
            } else if run > 0
                && found.bytes().all(|byte| byte.is_ascii_digit())
                && out.ends_with("number_tag: ")
            {
                out.push_str("<tag>");
                rest = &rest[run..];
            } else if run > 0
                && (out.ends_with("_tag: ")
                    || out.ends_with("day: ")
                    // Minutes since 1970.
                    || (found.len() == 8 && (out.ends_with("amount: ") || out.ends_with("limit: "))))
                && found.len() > 4
                && !found.starts_with("214")
            {
                out.push_str("<number>");
                rest = &rest[run..];
            } else {
                let next = if run > 0 { run } else { rest.chars().next().unwrap().len_utf8() };
                out.push_str(&rest[..next]);
                rest = &rest[next..];
            }
        }
        out
    }
}

/// Length of the moment or today's date that a text begins with.
fn moment(text: &str) -> Option<usize> {
    let now = now_ms();
    let day = text.get(..10)?;
    let is_day = day
        .bytes()
        .enumerate()
        .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    if !is_day {
        return None;
    }
    let with_time = text.get(10..11) == Some("T");
    if with_time {
        return text.find('"').or(Some(text.len()));
    }
    let today = Date::at(i64::try_from(now / 1_000).unwrap()).to_string();
    let yesterday = Date::at(i64::try_from(now / 1_000 - 86_400).unwrap()).to_string();
    (day == today || day == yesterday).then_some(10)
}

#[tokio::test]
async fn every_route_answers_and_journals_as_it_did() {
    let mut house = House::open(10_000).await;
    licenses(&mut house).await;
    grants(&mut house).await;
    links(&mut house).await;
    register(&mut house).await;
    operators(&mut house).await;
    lines(&mut house).await;
    shared(&mut house).await;
    let House { gateway, ledger, text, .. } = house;
    drop(gateway);
    tokio::task::spawn_blocking(move || ledger.close()).await.unwrap();
    compare(&text);
}

/// A body of refused lines spends what its caller may be refused like as many requests; the rest is not decided.
#[tokio::test]
async fn lines_take_their_share_of_the_callers_refusals() {
    const BURST: u32 = 10;
    const LINES: usize = 300;
    let house = House::open(BURST).await;
    let before = house.ledger.size();
    let answer = house.in_lines("bank", &"{}\n".repeat(LINES)).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let codes = text.lines().take(LINES).map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["code"].as_str().unwrap().to_owned(), value["receipt"].is_object())
    });
    let (decided, undecided): (Vec<_>, Vec<_>) = codes.partition(|(_, has_receipt)| *has_receipt);
    assert_eq!(house.ledger.size() - before, decided.len() as u64, "an entry a refusal");
    assert!((1..LINES / 2).contains(&decided.len()), "{}", decided.len());
    assert!(undecided.iter().all(|(code, _)| code == "too-many-refusals"));
    let House { gateway, ledger, .. } = house;
    drop(gateway);
    tokio::task::spawn_blocking(move || ledger.close()).await.unwrap();
}

fn compare(text: &str) {
    let path = Path::new(GOLDEN);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    for (number, (is, was)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(is, was, "line {} of {GOLDEN}; BLESS=1 writes it anew", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{GOLDEN} has another length");
}

async fn licenses(house: &mut House) {
    let one = house.draft(NATURAL);
    let two = house.draft(LEGAL);
    let issue = json!({"license": one.value()});
    house.call("wrong role", Route::Issue, "bank", &issue).await;
    let issued = house.keyed("issued", Route::Issue, "issuer", &issue, "golden-again-0001").await;
    house.keyed("given again", Route::Issue, "issuer", &issue, "golden-again-0001").await;
    house
        .keyed(
            "another request under the key",
            Route::Issue,
            "issuer",
            &json!({"license": two.value()}),
            "golden-again-0001",
        )
        .await;
    house.call("the identifier exists", Route::Issue, "issuer", &issue).await;
    let mut bad = one.value();
    bad["fields"] = json!({"nothing": "1"});
    house.call("bad fields", Route::Issue, "issuer", &json!({"license": bad})).await;
    house.call("issued to an organisation", Route::Issue, "issuer", &json!({"license": two.value()})).await;
    house.call("no such route", Route::None, "issuer", &json!({})).await;
    house.call("not a request", Route::Verify, "issuer", &json!({"nothing": 1})).await;

    let identifier = issued["identifier"].as_str().unwrap();
    let license = json!({"identifier": identifier});
    let envelope = json!({"envelope": issued["envelope"]});
    let missing =
        json!({"identifier": "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U"});
    for (what, by, license, more) in [
        ("by its authority", "issuer", &license, json!({})),
        ("without a grant", "bank", &license, json!({})),
        ("vouched", "portal", &license, json!({"holder": one.holder()})),
        ("vouched for another", "portal", &license, json!({"holder": two.holder()})),
        ("none", "bank", &missing, json!({})),
        ("by envelope", "bank", &envelope, json!({})),
        (
            "by envelope with values",
            "bank",
            &envelope,
            json!({"expect": {"holderName": one.license.holders[0].0}}),
        ),
        ("by number, of an organisation", "bank", &two.number(), json!({})),
        ("by number, of a person", "issuer", &one.number(), json!({})),
        ("by number, of a person, without right", "bank", &one.number(), json!({})),
        (
            "values that match",
            "issuer",
            &license,
            json!({"expect": {"certificateNumber": one.license.certificate_number}}),
        ),
        ("a value that does not", "issuer", &license, json!({"expect": {"certificateNumber": "other"}})),
        ("no such grant", "bank", &license, json!({"grant": "00000000000000000000000000000000"})),
        ("wrong role", "auditor", &license, json!({})),
        ("a class that the caller has not", "issuer", &license, json!({"delay": "class"})),
    ] {
        let mut body = json!({"license": license, "use": used()});
        for (name, value) in more.as_object().unwrap() {
            let place = if name == "delay" { &mut body["use"] } else { &mut body };
            place[name] = value.clone();
        }
        house.call(what, Route::Verify, by, &body).await;
    }
    for (what, by, license, more) in [
        ("fields", "issuer", &license, json!({"mode": "fields", "fields": ["holderName"]})),
        ("face", "portal", &license, json!({"mode": "face", "holder": one.holder()})),
        ("envelope", "issuer", &license, json!({"mode": "envelope"})),
        ("copy", "portal", &license, json!({"mode": "copy", "holder": one.holder()})),
        ("by number", "issuer", &one.number(), json!({"mode": "fields", "fields": ["holderName"]})),
        ("without a grant", "bank", &license, json!({"mode": "face"})),
        ("by number, without a grant", "bank", &one.number(), json!({"mode": "face"})),
        ("none", "issuer", &missing, json!({"mode": "face"})),
        ("no such field", "issuer", &license, json!({"mode": "fields", "fields": ["nothing"]})),
    ] {
        let mut body = json!({"license": license, "use": used()});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        house.call(what, Route::Retrieve, by, &body).await;
    }
    for (what, by, more) in [
        ("as its authority", "issuer", json!({})),
        ("as a portal", "portal", json!({})),
        ("without a grant", "bank", json!({})),
        ("a grant without a type", "bank", json!({"grant": "00000000000000000000000000000000"})),
    ] {
        let mut body = json!({"holder": one.holder(), "use": used()});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        house.call(what, Route::Search, by, &body).await;
    }
    for (what, by, body) in
        [("all of a type", "issuer", json!({"typeCode": LEGAL})), ("wrong role", "bank", json!({}))]
    {
        house.call(what, Route::IssuedList, by, &body).await;
    }
    let operation =
        |operation: &str| json!({"identifier": identifier, "operation": operation, "reason": "测试"});
    house.call("of another authority", Route::Transition, "bank", &operation("06")).await;
    house.call("not in the table", Route::Transition, "issuer", &operation("10")).await;
    let mut to = operation("05");
    to["to"] = json!("03");
    house.call("to another state", Route::Transition, "issuer", &to).await;
    let mut version = operation("02");
    version["license"] = one.value();
    house.call("a new version", Route::Transition, "issuer", &version).await;
    house.call("the version before", Route::Transition, "issuer", &operation("07")).await;
}

async fn issued(house: &mut House, code: &str) -> (Draft, String) {
    let draft = house.draft(code);
    let answer = house.call("issued", Route::Issue, "issuer", &json!({"license": draft.value()})).await;
    let identifier = answer["identifier"].as_str().unwrap().to_owned();
    (draft, identifier)
}

async fn grants(house: &mut House) {
    let (one, identifier) = issued(house, NATURAL).await;
    let grantee = organisation("bank");
    let grant = |more: Value| {
        let mut grant = json!({
            "holder": one.holder(), "grantee": grantee.as_str(), "modes": ["verify", "fields", "envelope", "search"],
            "fields": ["holderName"], "until": rfc3339(now_ms() + 3_600_000),
        });
        for (name, value) in more.as_object().unwrap() {
            grant[name] = value.clone();
        }
        grant
    };
    let of_license = grant(json!({"identifier": identifier, "maxUses": 2}));
    house.call("wrong role", Route::GrantCreate, "bank", &of_license).await;
    let made = house.call("for a license", Route::GrantCreate, "portal", &of_license).await;
    let id = made["grant"].clone();
    house.call("a holder's", Route::GrantSearch, "portal", &json!({"holder": one.holder()})).await;
    house.call("the caller's", Route::GrantSearch, "bank", &json!({})).await;
    house.call("wrong role", Route::GrantSearch, "issuer", &json!({})).await;
    let of_type = grant(json!({"typeCode": NATURAL, "itemCode": "11440100MB2D00000000044010000001"}));
    let by_type = house.call("for a type", Route::GrantCreate, "portal", &of_type).await["grant"].clone();
    house
        .call(
            "to the portal itself",
            Route::GrantCreate,
            "portal",
            &grant(json!({"identifier": identifier, "grantee": organisation("portal").as_str()})),
        )
        .await;
    let stranger = house.draft(NATURAL);
    house
        .call(
            "of nobody",
            Route::GrantCreate,
            "portal",
            &grant(json!({"identifier": identifier, "holder": stranger.holder()})),
        )
        .await;
    let uses = |grant: &Value, more: Value| {
        let mut body = json!({"license": {"identifier": identifier}, "grant": grant, "use": used()});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    house.call("by a grant", Route::Verify, "bank", &uses(&id, json!({}))).await;
    house
        .call(
            "by a grant",
            Route::Retrieve,
            "bank",
            &uses(&id, json!({"mode": "fields", "fields": ["holderName"], "use": in_case("CS20260002")})),
        )
        .await;
    house.call("again in its case", Route::Verify, "bank", &uses(&id, json!({}))).await;
    let third = uses(&id, json!({"use": in_case("CS20260003")}));
    house.call("a grant that is used up", Route::Verify, "bank", &third).await;
    house.call("another's grant", Route::Verify, "approval", &uses(&id, json!({}))).await;
    house
        .call("a mode that the grant has not", Route::Retrieve, "bank", &uses(&id, json!({"mode": "face"})))
        .await;
    house
        .call(
            "a field that the grant has not",
            Route::Retrieve,
            "bank",
            &uses(&id, json!({"mode": "fields", "fields": ["holderNumber"]})),
        )
        .await;
    let search = json!({"holder": one.holder(), "typeCode": NATURAL, "grant": by_type, "use": used()});
    house.call("by a grant", Route::Search, "bank", &search).await;
    let change = |action: &str, more: Value| {
        let mut body = json!({"grant": id, "holder": one.holder(), "action": action, "reason": "测试"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    house.call("wrong role", Route::GrantChange, "bank", &change("pause", json!({}))).await;
    house.call("paused", Route::GrantChange, "portal", &change("pause", json!({}))).await;
    house.call("paused before", Route::GrantChange, "portal", &change("pause", json!({}))).await;
    house.call("resumed", Route::GrantChange, "portal", &change("resume", json!({}))).await;
    let less = json!({"modes": ["verify"], "purpose": "测试用途", "scenario": "finance", "maxUses": 1});
    house.call("narrowed", Route::GrantChange, "portal", &change("narrow", less)).await;
    let more = json!({"modes": ["copy"], "purpose": "别的", "fields": ["holderNumber"]});
    house.call("made wider", Route::GrantChange, "portal", &change("narrow", more)).await;
    let revoke = json!({"grant": id, "holder": one.holder(), "reason": "测试撤回"});
    house.call("wrong role", Route::GrantRevoke, "bank", &revoke).await;
    house
        .call(
            "of another holder",
            Route::GrantRevoke,
            "portal",
            &json!({"grant": id, "holder": stranger.holder(), "reason": "测试"}),
        )
        .await;
    house.call("revoked", Route::GrantRevoke, "portal", &revoke).await;
    house.call("revoked before", Route::GrantRevoke, "portal", &revoke).await;
    house.call("a grant that is revoked", Route::Verify, "bank", &uses(&id, json!({}))).await;
}

async fn links(house: &mut House) {
    let (one, _) = issued(house, NATURAL).await;
    let (two, _) = issued(house, NATURAL).await;
    let stranger = house.draft(NATURAL);
    let make = |agent: Value| json!({"holder": one.holder(), "agent": agent, "kind": "guardian", "basis": "测试依据", "until": rfc3339(now_ms() + 3_600_000)});
    house.call("wrong role", Route::LinkMake, "bank", &make(two.holder())).await;
    house.call("made", Route::LinkMake, "portal", &make(two.holder())).await;
    house.call("made with somebody new", Route::LinkMake, "portal", &make(stranger.holder())).await;
    let trace = |agent: Option<Value>| {
        let mut body = json!({"holder": one.holder(), "use": used()});
        if let Some(agent) = agent {
            body["agent"] = agent;
        }
        body
    };
    house.call("wrong role", Route::Trace, "bank", &trace(None)).await;
    let (third, _) = issued(house, NATURAL).await;
    house.call("no link", Route::Trace, "portal", &trace(Some(third.holder()))).await;
    let end = json!({"holder": one.holder(), "agent": two.holder(), "reason": "测试"});
    house.call("ended", Route::LinkEnd, "portal", &end).await;
    let nobody = house.draft(NATURAL);
    house
        .call(
            "no such holder",
            Route::LinkEnd,
            "portal",
            &json!({"holder": nobody.holder(), "agent": two.holder(), "reason": "测试"}),
        )
        .await;
    house.call("without a purpose", Route::LogQuery, "auditor", &json!({})).await;
    house
        .call(
            "wrong role",
            Route::LogQuery,
            "bank",
            &json!({"purpose": "测试", "userName": "测试", "holder": one.holder()}),
        )
        .await;
}

/// Each line of a body is decided, journaled and answered on its own, in its place; the end says that nothing is missing.
async fn lines(house: &mut House) {
    let (one, identifier) = issued(house, LEGAL).await;
    let verify = |license: Value| json!({"license": license, "use": used()}).to_string();
    let bodies = [
        verify(one.number()),
        verify(json!({"identifier": identifier})),
        "{\"nothing\":1}".to_owned(),
        verify(json!({"identifier": identifier})).replace("受理", "其他"),
    ];
    let before = house.ledger.size();
    let answer = house.in_lines("bank", &bodies.join("\r\n")).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((answer.status, lines.len()), (200, bodies.len() + 1));
    assert_eq!(lines[bodies.len()], r#"{"end":true,"lines":4}"#);
    let mut entries: Vec<u64> = Vec::new();
    for (line, (body, code)) in
        lines.iter().zip(bodies.iter().zip(["ok", "ok", "unknown-field", "bad-use-context"]))
    {
        let (cut, receipt) = verifier::receipt::cut(line.as_bytes()).unwrap();
        let value: Value = serde_json::from_slice(&cut).unwrap();
        assert_eq!(value["code"].as_str().unwrap_or("ok"), code);
        let open = Open::parse(&receipt.open).unwrap();
        assert_eq!(open.answer_digest, verifier::sha256(&[&cut]));
        let digest = verifier::receipt::request_digest(&receipt.request_salt.unwrap(), body.as_bytes());
        assert_eq!(open.request_digest, digest, "the receipt is of its line");
        entries.push(receipt.index);
    }
    entries.sort_unstable();
    entries.dedup();
    assert_eq!(entries.len(), bodies.len(), "an entry a line");
    assert!(entries.iter().all(|index| *index >= before));
    let many = "{}\n".repeat(1_001);
    let answer = house.in_lines("bank", &many).await;
    let (cut, _) = verifier::receipt::cut(&answer.body).unwrap();
    let problem: Value = serde_json::from_slice(&cut).unwrap();
    assert_eq!((problem["code"].as_str(), answer.status), (Some("malformed-request"), 400));
    assert_eq!(house.ledger.size() - before, bodies.len() as u64 + 1, "too many lines are one refusal");
    let answer = house.sent("bank", Route::Trace, "application/x-ndjson", &many).await;
    assert_eq!(answer.status, 415, "a route that takes no lines says so");
}

/// Shared data that a rule grants: no clock runs, so no day of the answers depends on the calendar.
async fn shared(house: &mut House) {
    let company = Resource::samples().swap_remove(1);
    let code = &company.code;
    let write = json!({"resource": company});
    house.call("wrong role", Route::ResourceWrite, "bank", &write).await;
    house.call("written", Route::ResourceWrite, "provider", &write).await;
    let publish = json!({"resource": code, "action": "publish", "reason": "测试"});
    house.call("published", Route::ResourceTransition, "provider", &publish).await;
    house.call("published before", Route::ResourceTransition, "provider", &publish).await;
    house.call("the catalogue", Route::ResourceSearch, "bank", &json!({"words": "法人"})).await;
    house.call("no such domain", Route::ResourceSearch, "bank", &json!({"domain": "none"})).await;

    let holder = HolderRef::new("001", Synthetic::numbered_uscc(1).as_str()).unwrap();
    let query = json!({"resource": code, "holder": named(&holder), "use": used()});
    let apply = json!({
        "resource": code, "itemCode": used()["itemCode"], "itemName": "测试事项", "purpose": "测试核对",
        "scope": {"fields": ["organisationName", "status"], "until": "2099-12-31"},
    });
    house.call("wrong role", Route::ApplicationMake, "provider", &apply).await;
    let made = house.call("granted by rule", Route::ApplicationMake, "bank", &apply).await;
    house.call("the caller's", Route::ApplicationList, "bank", &json!({})).await;
    let refuse =
        json!({"application": made["application"], "action": "refuse", "ground": "no-duty", "basis": "测试"});
    house.call("answered before", Route::ApplicationTransition, "provider", &refuse).await;

    let row = json!({
        "creditCode": holder.number(), "organisationName": "测试公司", "regionCode": "350102", "status": "在营",
    });
    let ingest = json!({"resource": code, "firstLine": 1, "rows": [row, {"creditCode": "1"}]});
    house.call("wrong role", Route::RecordsIngest, "bank", &ingest).await;
    house.call("one taken, one rejected", Route::RecordsIngest, "provider", &ingest).await;
    house.call("found", Route::RecordsQuery, "bank", &query).await;
    let suspend = json!({"resource": code, "action": "suspend", "reason": "测试"});
    house.call("suspended", Route::ResourceTransition, "provider", &suspend).await;
    house.call("of a suspended resource", Route::RecordsQuery, "bank", &query).await;
}

async fn register(house: &mut House) {
    let new = house.synthetic.uscc();
    let participant = |more: Value| {
        let mut participant = json!({"organisation": new.as_str(), "name": "测试单位", "roles": ["relying"], "validFrom": "2020-01-01"});
        for (name, value) in more.as_object().unwrap() {
            participant[name] = value.clone();
        }
        json!({"participant": participant})
    };
    house.call("wrong role", Route::ParticipantAdd, "bank", &participant(json!({}))).await;
    house.call("added", Route::ParticipantAdd, "operator", &participant(json!({}))).await;
    house.call("there already", Route::ParticipantAdd, "operator", &participant(json!({}))).await;
    house
        .call("takes two", Route::ParticipantChange, "operator", &participant(json!({"roles": ["portal"]})))
        .await;
    house.call("changed", Route::ParticipantChange, "operator", &participant(json!({"dailyQuota": 3}))).await;
    let suspend = json!({"organisation": new.as_str(), "suspended": true, "reason": "测试"});
    house.call("suspended", Route::ParticipantSuspend, "operator", &suspend).await;
    house.call("wrong role", Route::ParticipantSuspend, "bank", &suspend).await;
    house.call("the caller's own", Route::ParticipantList, "bank", &json!({})).await;
}

async fn operators(house: &mut House) {
    let (one, identifier) = issued(house, NATURAL).await;
    let propose = |kind: &str| json!({"kind": kind, "holder": one.holder(), "reason": "测试"});
    house.call("wrong role", Route::Propose, "bank", &propose("hold-holder")).await;
    house.call("in force", Route::Propose, "operator", &propose("erase-holder")).await;
    let hold =
        house.call("hold", Route::Propose, "operator", &propose("hold-holder")).await["proposal"].clone();
    house.call("all", Route::ProposalList, "operator", &json!({})).await;
    let approve = |id: &Value| json!({"proposal": id});
    house.call("one's own", Route::Approve, "operator", &approve(&hold)).await;
    house.call("hold", Route::Approve, "operator2", &approve(&hold)).await;
    house.call("closed", Route::Approve, "operator2", &approve(&hold)).await;
    house
        .call("none", Route::Approve, "operator2", &json!({"proposal": "00000000000000000000000000000000"}))
        .await;
    let release =
        house.call("release", Route::Propose, "operator", &propose("release-hold")).await["proposal"].clone();
    house.call("release", Route::Approve, "operator2", &approve(&release)).await;
    let cancel = json!({"identifier": identifier, "operation": "06", "reason": "测试"});
    house.call("cancelled", Route::Transition, "issuer", &cancel).await;
    let erase =
        house.call("erase", Route::Propose, "operator", &propose("erase-holder")).await["proposal"].clone();
    house.call("erase", Route::Approve, "operator2", &approve(&erase)).await;
    let rotate = house
        .call("rotate", Route::Propose, "operator", &json!({"kind": "rotate-epoch", "reason": "测试"}))
        .await["proposal"]
        .clone();
    house.call("rotate", Route::Approve, "operator2", &approve(&rotate)).await;
    let organisation = house.synthetic.uscc();
    let participant = json!({"organisation": organisation.as_str(), "name": "测试门户", "roles": ["portal"], "validFrom": "2020-01-01"});
    let new = house
        .call(
            "register",
            Route::Propose,
            "operator",
            &json!({"kind": "register-participant", "participant": participant, "reason": "测试"}),
        )
        .await["proposal"]
        .clone();
    house.call("another registration", Route::Approve, "operator2", &approve(&new)).await;
    house
        .call("register", Route::Approve, "operator2", &json!({"proposal": new, "participant": participant}))
        .await;
    let definition = serde_json::to_value(LicenseType::builtin().first().unwrap()).unwrap();
    let publish = house
        .call(
            "publish",
            Route::Propose,
            "operator",
            &json!({"kind": "publish-type", "licenseType": definition, "reason": "测试"}),
        )
        .await["proposal"]
        .clone();
    house
        .call(
            "publish",
            Route::Approve,
            "operator2",
            &json!({"proposal": publish, "licenseType": definition}),
        )
        .await;
    house.call("wrong role", Route::ProposalList, "bank", &json!({})).await;
}
