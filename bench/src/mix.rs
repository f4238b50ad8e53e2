//! What is asked of an exchange: a mix of operations over a population, and what its right answers look like.

use std::sync::Arc;

use anyhow::Context as _;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::json;

use crate::drive::{Answer, Cause, Request, Ticket, Workload};
use crate::folder;
use crate::machine;
use crate::population::{
    Drafts, IDENTIFIER_BYTES, Plan, Population, grant, now_ms, serial, use_context, verify_value,
};
use crate::random::{Random, Zipf};
use crate::records;
use crate::scenario::{Exchange, Operation, Share};
use crate::target::scattered;
use crate::template::{Place, Template, digits, hex};

/// The first answer is kept for the checks, and every n-th after it.
const KEEP_EVERY: u64 = 199;
/// Right answers kept; when there are more, every second one is given up, and half as many are taken from then on.
const MAX_KEPT: usize = 20_000;
/// Denials and wrong answers kept; an organisation's budget of denials ends far below.
const MAX_KEPT_WRONG: usize = 10_000;
/// Different licenses that are issued again and again under new serials.
const ISSUED: u64 = 1_024;

/// A request and its answer, kept for the checks.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Body as sent.
    pub request: Vec<u8>,
    /// Body as received.
    pub answer: Vec<u8>,
}

/// What is kept for the checks after a run.
#[derive(Debug)]
pub struct Keep {
    /// A sample of right answers.
    pub right: Vec<Kept>,
    /// Denials and wrong answers.
    pub wrong: Vec<Kept>,
    seen: u64,
    every: u64,
}

impl Keep {
    const fn new() -> Self {
        Self { right: Vec::new(), wrong: Vec::new(), seen: 0, every: KEEP_EVERY }
    }

    fn right(&mut self, request: &[u8], answer: &[u8]) {
        if self.seen.is_multiple_of(self.every) {
            self.right.push(Kept { request: request.to_vec(), answer: answer.to_vec() });
            if self.right.len() >= MAX_KEPT {
                let mut number = 0;
                self.right.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.every *= 2;
            }
        }
        self.seen += 1;
    }

    fn wrong(&mut self, request: &Request, answer: Answer<'_>) {
        if self.wrong.len() < MAX_KEPT_WRONG {
            self.wrong.push(Kept { request: request.body().to_vec(), answer: answer.body.to_vec() });
        }
    }
}

/// One operation, ready to be asked.
struct Ready {
    operation: Operation,
    share: f64,
    machine: bool,
    lane: usize,
    /// The number of lines of a body in lines.
    lines: Option<u16>,
    /// Of `verify` with the holder's grant and without; of `issue` one for each draft; else one.
    templates: Vec<Template>,
}

/// The workload of an exchange.
pub struct Mix {
    operations: Vec<Ready>,
    shares: f64,
    population: Arc<Population>,
    zipf: Zipf,
    /// The popularity of rows.
    rows: Zipf,
    random: Random,
    /// The next case number; no other run has the same ones.
    case: u64,
    /// What is kept for the checks.
    pub keep: Keep,
}

impl Operation {
    /// Who asks.
    pub const fn participant(self) -> &'static str {
        match self {
            Self::Verify | Self::Retrieve | Self::Query => "approval",
            Self::Search | Self::Grant => "portal",
            Self::Issue => "issuer",
        }
    }

    /// The name in scenario files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Retrieve => "retrieve",
            Self::Search => "search",
            Self::Issue => "issue",
            Self::Grant => "grant",
            Self::Query => "query",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Verify | Self::Retrieve | Self::Search | Self::Query => 200,
            Self::Issue | Self::Grant => 201,
        }
    }

    /// Whether it is about natural persons' licenses only, which have a holder who granted their use.
    const fn needs_right(self) -> bool {
        matches!(self, Self::Retrieve | Self::Search | Self::Grant)
    }
}

/// Who asks in a mix, each once.
pub fn lanes(exchange: &Exchange) -> Vec<&'static str> {
    let mut lanes = Vec::new();
    for share in &exchange.mix {
        let participant = share.operation.participant();
        if !lanes.contains(&participant) {
            lanes.push(participant);
        }
    }
    lanes
}

impl Mix {
    /// The mix of a scenario over a population; `host` stands in the requests.
    ///
    /// # Errors
    /// A participant is not there.
    pub fn new(exchange: &Exchange, population: Arc<Population>, host: &str) -> anyhow::Result<Self> {
        let lanes = lanes(exchange);
        let operations: Vec<Ready> = exchange
            .mix
            .iter()
            .map(|share| {
                let participant = share.operation.participant();
                let lane = lanes.iter().position(|lane| *lane == participant).context("a lane")?;
                let templates = templates(share, exchange, host)?;
                let Share { operation, share, machine, lines, .. } = *share;
                anyhow::Ok(Ready { operation, share, machine, lane, lines, templates })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            shares: operations.iter().map(|ready| ready.share).sum(),
            operations,
            zipf: Zipf::new(population.plan().licenses, exchange.zipf),
            rows: Zipf::new(population.plan().rows.max(1), exchange.zipf),
            population,
            random: Random::new(now_ms()),
            case: now_ms() * 1_000,
            keep: Keep::new(),
        })
    }

    /// Names of the kinds that are counted apart.
    pub fn names(&self) -> Vec<&'static str> {
        let name = |ready: &Ready| match (ready.operation, ready.machine, ready.lines) {
            (Operation::Verify, true, _) => "verify, machine",
            (Operation::Retrieve, true, _) => "retrieve, machine",
            (Operation::Query, _, Some(_)) => "query, in lines",
            (Operation::Verify, _, Some(_)) => "verify, a batch",
            (operation, _, _) => operation.name(),
        };
        self.operations.iter().map(name).collect()
    }

    /// Mean bytes of the bodies of each kind.
    pub fn body_bytes(&self) -> Vec<usize> {
        let mean = |ready: &Ready| {
            let bytes: usize = ready.templates.iter().map(Template::body_bytes).sum();
            bytes / ready.templates.len().max(1)
        };
        self.operations.iter().map(mean).collect()
    }
}

fn templates(share: &Share, exchange: &Exchange, host: &str) -> anyhow::Result<Vec<Template>> {
    let proof: &[_] = if share.inline_proof { &[("receipt", "inline")] } else { &[] };
    let letters = Place::letters;
    Ok(match share.operation {
        Operation::Verify if share.machine => [true, false]
            .map(|with_grant| machine::verify(with_grant).post(Route::Verify, host, proof))
            .to_vec(),
        Operation::Retrieve if share.machine => vec![machine::retrieve().post(Route::Retrieve, host, proof)],
        Operation::Verify if let Some(lines) = share.lines => {
            let values = [true, false].map(verify_value);
            vec![Template::in_turn(&values, lines.into()).post(Route::VerifyBatch, host, proof)]
        }
        Operation::Verify => [true, false]
            .map(|with_grant| Template::body(&verify_value(with_grant)).post(Route::Verify, host, proof))
            .to_vec(),
        Operation::Retrieve => {
            let value = json!({
                "license": {"identifier": letters(Place::Identifier)}, "mode": "envelope",
                "grant": letters(Place::Grant), "use": use_context(),
            });
            vec![Template::body(&value).post(Route::Retrieve, host, proof)]
        }
        Operation::Search => {
            let holder =
                json!({"typeCode": letters(Place::HolderType), "number": letters(Place::HolderNumber)});
            let value = json!({"holder": holder, "use": use_context()});
            vec![Template::body(&value).post(Route::Search, host, proof)]
        }
        Operation::Grant => {
            let bank = folder::organisation("bank")?;
            let holder = [letters(Place::HolderType), letters(Place::HolderNumber)];
            let value = grant(&letters(Place::Identifier), &holder[0], &holder[1], &bank);
            let key = format!("bench-grant-{}", letters(Place::Case));
            let headers = [proof, &[("idempotency-key", &key)]].concat();
            vec![Template::body(&value).post(Route::GrantCreate, host, &headers)]
        }
        Operation::Query => {
            let value = records::query(&letters(Place::HolderNumber), use_context());
            vec![
                match share.lines {
                    Some(lines) => Template::lines(&value, lines.into()),
                    None => Template::body(&value),
                }
                .post(Route::RecordsQuery, host, proof),
            ]
        }
        Operation::Issue => {
            let key = format!("bench-issue-{}", letters(Place::Serial));
            let headers = [proof, &[("idempotency-key", &key)]].concat();
            let seed = now_ms();
            let drafts = Drafts::new(Plan { licenses: ISSUED, seed, sizes: exchange.sizes.clone(), rows: 0 });
            (0..ISSUED)
                .map(|number| {
                    let serial = serial('B', number);
                    let text = String::from_utf8_lossy(&drafts.draft(number, &serial).body).into_owned();
                    Template::text(text.replace(&serial, &letters(Place::Serial))).post(
                        Route::Issue,
                        host,
                        &headers,
                    )
                })
                .collect()
        }
    })
}

impl Workload for Mix {
    fn kinds(&self) -> usize {
        self.operations.len()
    }

    fn draw(&mut self) -> Ticket {
        let mut rest = self.random.unit() * self.shares;
        let drawn = self.operations.iter().position(|ready| {
            rest -= ready.share;
            rest <= 0.0
        });
        let kind = drawn.unwrap_or(self.operations.len() - 1);
        let Ready { operation, lane, .. } = self.operations[kind];
        let Plan { licenses, rows, .. } = *self.population.plan();
        let number = match operation {
            Operation::Query => scattered(self.rows.draw(&mut self.random) - 1, rows.max(1)),
            _ => scattered(self.zipf.draw(&mut self.random) - 1, licenses),
        };
        // Natural persons' licenses are the even ones.
        let subject = if operation.needs_right() { number & !1 } else { number };
        Ticket { lane, kind, subject }
    }

    fn write(&mut self, ticket: Ticket, request: &mut Request) {
        let Ready { operation, templates, lines, .. } = &self.operations[ticket.kind];
        let (case, number, population) = (self.case, ticket.subject, &self.population);
        self.case += 1;
        if *operation == Operation::Query {
            let (rows, count, random) = (&self.rows, population.plan().rows, &mut self.random);
            request.head_bytes = templates[0].head_bytes();
            let mut next = Some(number);
            templates[0].write(&mut request.bytes, |place, into| match place {
                Place::HolderNumber => {
                    // The first line is about the ticket's row; each other draws its own.
                    let number = next.take().unwrap_or_else(|| scattered(rows.draw(random) - 1, count));
                    into.copy_from_slice(Synthetic::numbered_uscc(number).as_str().as_bytes());
                }
                Place::Case | Place::Identifier | Place::Grant | Place::HolderType | Place::Serial => {
                    digits(case, into)
                }
            });
            return;
        }
        if let (Operation::Verify, Some(lines)) = (operation, lines) {
            // Natural persons' licenses, which have a grant, and legal persons' in turn. The first line is about the ticket's.
            let (zipf, random, licenses) = (&self.zipf, &mut self.random, population.plan().licenses);
            let drawn = (0..*lines).map(|line| {
                let number = if line == 0 { number } else { scattered(zipf.draw(random) - 1, licenses) };
                number & !1 | u64::from(line % 2)
            });
            let drawn: Vec<u64> = drawn.collect();
            let (mut named, mut granted) = (drawn.iter(), drawn.iter().step_by(2));
            request.head_bytes = templates[0].head_bytes();
            templates[0].write(&mut request.bytes, |place, into| match place {
                Place::Identifier => population.identifier(named.next().copied().unwrap_or(number), into),
                Place::Grant => {
                    let number = granted.next().copied().unwrap_or(number);
                    if let Some(right) = population.right(number) {
                        hex(right.grant, into);
                    }
                }
                Place::Case | Place::HolderType | Place::HolderNumber | Place::Serial => digits(case, into),
            });
            return;
        }
        let right = population.right(number);
        let template = match operation {
            Operation::Issue => &templates[case as usize % templates.len()],
            Operation::Verify => &templates[usize::from(right.is_none())],
            _ => &templates[0],
        };
        request.head_bytes = template.head_bytes();
        template.write(&mut request.bytes, |place, into| match (place, &right) {
            (Place::Case, _) => digits(case, into),
            (Place::Identifier, _) => population.identifier(number, into),
            (Place::Serial, _) => {
                into[0] = b'R';
                digits(case, &mut into[1..]);
            }
            (Place::Grant, Some(right)) => hex(right.grant, into),
            (Place::HolderType, Some(right)) => into.copy_from_slice(right.holder_type),
            (Place::HolderNumber, Some(right)) => into.copy_from_slice(right.holder_number),
            // Only natural persons' licenses are drawn for what has these places.
            (Place::Grant | Place::HolderType | Place::HolderNumber, None) => {}
        });
    }

    fn judge(&mut self, ticket: Ticket, request: &Request, answer: Answer<'_>) -> Result<(), Cause> {
        let Ready { operation, machine, lines, .. } = self.operations[ticket.kind];
        if answer.status != operation.status() {
            self.keep.wrong(request, answer);
            return Err(answer.status.to_string().into());
        }
        let right = match operation {
            Operation::Verify if machine => machine::is_valid(answer.body),
            Operation::Verify if let Some(lines) = lines => {
                let of = |begin: &'static [u8]| {
                    answer
                        .body
                        .split(|byte| *byte == b'\n')
                        .filter(move |line| line.starts_with(begin))
                        .count()
                };
                of(br#"{"verdict":"valid","#) == usize::from(lines) && of(br#"{"end":true,"#) == 1
            }
            Operation::Verify => answer.body.starts_with(br#"{"verdict":"valid","#),
            Operation::Retrieve => {
                let mut identifier = [0; IDENTIFIER_BYTES];
                self.population.identifier(ticket.subject, &mut identifier);
                if machine {
                    machine::is_envelope_of(answer.body, &identifier)
                } else {
                    let rest = answer.body.strip_prefix(br#"{"identifier":""#);
                    rest.and_then(|rest| rest.strip_prefix(&identifier))
                        .is_some_and(|rest| rest.starts_with(br#"","mode":"envelope","#))
                }
            }
            Operation::Search => answer.body.starts_with(br#"{"licenses":[{"identifier":"#),
            Operation::Issue => answer.body.starts_with(br#"{"identifier":"1.2.156.3005.2."#),
            Operation::Grant => answer.body.starts_with(br#"{"grant":""#),
            Operation::Query => {
                let found = records::FOUND.as_bytes();
                let named =
                    answer.body.strip_prefix(found).and_then(|rest| rest.strip_prefix(records::NAMED));
                let is_row =
                    named.is_some_and(|rest| rest.starts_with(records::name(ticket.subject).as_bytes()));
                let all = answer.body.split(|byte| *byte == b'\n').filter(|line| line.starts_with(found));
                is_row && all.count() == usize::from(lines.unwrap_or(1))
            }
        };
        if right {
            // Each line has a receipt of its own.
            let first = |body| match lines {
                // An answer in parts begins with the length of the first.
                Some(_) => <[u8]>::split(body, |byte| *byte == b'\n')
                    .find(|line| line.starts_with(b"{"))
                    .unwrap_or_default(),
                None => body,
            };
            self.keep.right(first(request.body()), first(answer.body));
            Ok(())
        } else {
            self.keep.wrong(request, answer);
            Err(operation.name().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population::Records;
    use crate::scenario::Scenario;
    use exchange::gateway::dry;
    use schemas::holder::HolderRef;
    use schemas::routes::Form;

    fn mix(text: &str) -> Mix {
        let folder = tempfile::tempdir().unwrap();
        let mut records = Records::new(Plan { licenses: 40, seed: 1, sizes: Vec::new(), rows: 1_000 });
        let holder = HolderRef::new("111", "350102194604220001").unwrap();
        for number in (0..40).step_by(2) {
            records.set(number, &holder, &"ab".repeat(16)).unwrap();
        }
        records.save(folder.path()).unwrap();
        let issuer = folder::organisation("issuer").unwrap();
        let population = Population::load(folder.path(), issuer).unwrap();
        let text =
            format!("title = \"t\"\n[[phase]]\narrivals = \"closed\"\n[exchange]\nlicenses = 40\n{text}");
        let scenario = Scenario::parse(&text).unwrap();
        Mix::new(&scenario.exchange.unwrap(), Arc::new(population), "h:1").unwrap()
    }

    const ALL: &str = r#"
        mix = [
            {operation = "verify", share = 4}, {operation = "retrieve", share = 2, inline_proof = true},
            {operation = "search", share = 1}, {operation = "issue", share = 1}, {operation = "grant", share = 1},
        ]
        zipf = 1.0
        sizes = [{bytes = 900, share = 1}]
    "#;

    #[test]
    fn every_operation_writes_requests_that_parse_and_differ() {
        let mut mix = mix(ALL);
        let routes = [Route::Verify, Route::Retrieve, Route::Search, Route::Issue, Route::GrantCreate];
        let mut counts = [0_u32; 5];
        let mut requests = std::collections::HashSet::new();
        for _ in 0..4_500 {
            let ticket = mix.draw();
            let mut request = Request::default();
            mix.write(ticket, &mut request);
            dry::read(routes[ticket.kind], Form::Json, request.body()).unwrap();
            let head = String::from_utf8(request.bytes[..request.head_bytes].to_vec()).unwrap();
            assert!(head.starts_with(&format!("POST {} HTTP/1.1\r\n", routes[ticket.kind].path().unwrap())));
            assert!(head.contains(&format!("content-length: {}\r\n", request.body().len())), "{head}");
            assert_eq!(head.contains("receipt: inline"), ticket.kind == 1);
            assert_eq!(head.contains("idempotency-key: bench-"), ticket.kind > 2);
            assert_eq!(ticket.lane, [0, 0, 1, 2, 1][ticket.kind]);
            assert!(ticket.subject < 40 && (ticket.kind != 1 || ticket.subject.is_multiple_of(2)));
            assert!(requests.insert(request.bytes), "no two requests are the same");
            counts[ticket.kind] += 1;
        }
        // Shares 4, 2, 1, 1, 1 of 9: 2,000, 1,000, 500; six standard deviations.
        for (count, expected) in counts.iter().zip([2_000.0, 1_000.0, 500.0, 500.0, 500.0_f64]) {
            assert!((f64::from(*count) - expected).abs() < 6.0 * expected.sqrt(), "{counts:?}");
        }
        assert_eq!(mix.names(), ["verify", "retrieve", "search", "issue", "grant"]);
        assert!(
            (900..903).contains(&mix.body_bytes()[3]) || mix.body_bytes()[3] > 850,
            "{:?}",
            mix.body_bytes()
        );
    }

    #[test]
    fn machine_peers_ask_the_same_in_their_form() {
        let mut mix = mix(r#"mix = [
            {operation = "verify", share = 1, machine = true},
            {operation = "retrieve", share = 1, machine = true, inline_proof = true},
        ]"#);
        let mut requests = std::collections::HashSet::new();
        for _ in 0..200 {
            let ticket = mix.draw();
            let mut request = Request::default();
            mix.write(ticket, &mut request);
            let route = [Route::Verify, Route::Retrieve][ticket.kind];
            dry::read(route, Form::Machine, request.body()).unwrap();
            let head = String::from_utf8(request.bytes[..request.head_bytes].to_vec()).unwrap();
            assert!(head.contains(&format!("content-type: {}\r\n", schemas::machine::MEDIA_TYPE)), "{head}");
            assert!(requests.insert(request.bytes), "no two requests are the same");
        }
        assert_eq!(mix.names(), ["verify, machine", "retrieve, machine"]);
        for kind in 0..2 {
            let answer = Answer { status: 200, body: br#"{"verdict":"valid","identifier":"1.2.156"}"# };
            let ticket = Ticket { lane: 0, kind, subject: 2 };
            assert!(mix.judge(ticket, &Request::default(), answer).is_err(), "JSON is no answer to it");
        }
    }

    #[test]
    fn each_line_of_a_body_asks_for_a_row_of_its_own() {
        let mut mix = mix(r#"mix = [
            {operation = "query", share = 1}, {operation = "query", share = 1, lines = 3},
        ]
        rows = 1000"#);
        let mut ticket = mix.draw();
        for (kind, lines) in [(0, 1), (1, 3)] {
            ticket.kind = kind;
            let mut request = Request::default();
            mix.write(ticket, &mut request);
            let body = std::str::from_utf8(request.body()).unwrap();
            assert_eq!(body.lines().count(), lines);
            for line in body.lines() {
                dry::read(Route::RecordsQuery, Form::Json, line.as_bytes()).unwrap();
            }
            let numbers: std::collections::HashSet<&str> =
                body.lines().filter_map(|line| line.split_once("91").map(|(_, rest)| &rest[..16])).collect();
            assert_eq!(numbers.len(), lines);
            let row = |number| {
                format!(r#"{}"organisationName":"{}"}}}}"#, *records::FOUND, records::name(number)) + "\n"
            };
            let right = row(ticket.subject) + &row(1).repeat(lines - 1);
            let mut judged =
                |body: &str| mix.judge(ticket, &request, Answer { status: 200, body: body.as_bytes() });
            judged(&right).unwrap();
            assert!(judged(&row(ticket.subject + 1)).is_err());
            assert!(judged(&(right.clone() + &row(2))).is_err());
        }
        assert_eq!(mix.names(), ["query", "query, in lines"]);
    }

    #[test]
    fn each_line_of_a_batch_asks_for_a_license_of_its_own_with_the_grant_of_its_holder() {
        let mut mix = mix(r#"mix = [{operation = "verify", share = 1, lines = 4}]"#);
        let ticket = mix.draw();
        let mut request = Request::default();
        mix.write(ticket, &mut request);
        let body = std::str::from_utf8(request.body()).unwrap().to_owned();
        let granted: Vec<bool> = body.lines().map(|line| line.contains("\"grant\"")).collect();
        assert_eq!(granted, [true, false, true, false]);
        for line in body.lines() {
            dry::read(Route::Verify, Form::Json, line.as_bytes()).unwrap();
        }
        let answer = "{\"verdict\":\"valid\",\"reasons\":[]}\n";
        let end = "{\"end\":true,\"lines\":4}\n";
        let mut judged =
            |body: &str| mix.judge(ticket, &request, Answer { status: 200, body: body.as_bytes() });
        // As it comes in parts.
        judged(&format!("4c\r\n{}\r\n9\r\n{}{end}\r\n", answer.repeat(2), answer.repeat(2))).unwrap();
        assert!(judged(&(answer.repeat(3) + end)).is_err());
        assert!(judged(&answer.repeat(4)).is_err());
        assert_eq!(mix.names(), ["verify, a batch"]);
    }

    #[test]
    fn only_the_expected_answer_is_right_and_every_other_is_kept() {
        let mut mix = mix(ALL);
        let mut judged = |kind: usize, status, body: &str| {
            let ticket = Ticket { lane: 0, kind, subject: 2 };
            mix.judge(ticket, &Request::default(), Answer { status, body: body.as_bytes() })
                .map_err(Cause::into_owned)
        };
        judged(0, 200, r#"{"verdict":"valid","state":"01"}"#).unwrap();
        assert_eq!(judged(0, 200, r#"{"verdict":"invalid","reasons":[]}"#).unwrap_err(), "verify");
        assert_eq!(judged(0, 200, "garbage").unwrap_err(), "verify");
        assert_eq!(judged(0, 403, r#"{"verdict":"valid","#).unwrap_err(), "403");
        assert_eq!(judged(1, 200, r#"{"identifier":"1.2.156","mode":"envelope","#).unwrap_err(), "retrieve");
        assert_eq!(judged(2, 200, r#"{"licenses":[],"truncated":false}"#).unwrap_err(), "search");
        assert_eq!(judged(3, 200, r#"{"identifier":"1.2.156.3005.2.1"}"#).unwrap_err(), "200");
        judged(3, 201, r#"{"identifier":"1.2.156.3005.2.1"}"#).unwrap();
        judged(4, 201, r#"{"grant":"00"}"#).unwrap();
        assert_eq!((mix.keep.right.len(), mix.keep.wrong.len()), (1, 6));
    }

    #[test]
    fn a_long_run_keeps_a_bounded_sample() {
        let mut keep = Keep::new();
        let answer = Answer { status: 200, body: b"" };
        for _ in 0..KEEP_EVERY * MAX_KEPT as u64 * 5 {
            keep.right(&[], answer.body);
        }
        assert!((MAX_KEPT / 2..MAX_KEPT).contains(&keep.right.len()), "{}", keep.right.len());
        (0..=MAX_KEPT_WRONG).for_each(|_| keep.wrong(&Request::default(), answer));
        assert_eq!(keep.wrong.len(), MAX_KEPT_WRONG);
    }
}
