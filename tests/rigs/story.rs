//! Callers that live through a cut. Each tells the stories of licenses, from issue to end, one request after the
//! other; it keeps every answer, and what it had asked when the connection broke. Afterwards the stories are held
//! against what the restarted exchange says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use schemas::codes::Code;
use schemas::identifier::CertificateIdentifier;
use schemas::routes::Route;
use serde_json::json;
use tests::{Call, Draft, Issued, Party, Reply, Server, Setup, Target, draft, grant, key, natural, revoke};

use crate::log::Log;
use crate::must;

/// Callers at once, each with a connection for each of its parties.
const CALLERS: usize = 4;
/// Uses that a grant allows.
const MAX_USES: u32 = 2;
/// One of so many grants is used until it is refused: refusals have a budget.
const SPEND_EVERY: u64 = 8;
/// Rest of a caller that was told to come later.
const LATER: Duration = Duration::from_millis(5);

/// The shortest segments that the configuration allows: quick starts, and some end under load.
const SEGMENT_MIB: u64 = 4;

/// A compact data folder, whose holders may be erased as soon as their licenses have ended.
pub(crate) fn setup() -> Setup {
    Setup::new().config(|config| {
        config.journal.segment_mib = SEGMENT_MIB;
        config.keys.retention_days = 0;
    })
}

/// One request of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Issue,
    /// The issuer verifies.
    Look,
    /// The same with an idempotency key.
    LookKeyed,
    Grant,
    /// The grantee verifies by the grant, which counts.
    Use,
    EndGrant,
    /// The license is cancelled.
    Cancel,
}

impl Step {
    /// Whether the request has an idempotency key.
    fn is_keyed(self) -> bool {
        self != Self::Look
    }
}

/// The parties of one caller.
pub(crate) struct Parties {
    issuer: Party,
    portal: Party,
    bank: Party,
}

impl Parties {
    fn of(server: &Server) -> Self {
        let [issuer, portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
        Self { issuer, portal, bank }
    }

    fn again(&self) -> Self {
        Self { issuer: self.issuer.again(), portal: self.portal.again(), bank: self.bank.again() }
    }

    async fn send(&mut self, step: Step, call: &Call) -> anyhow::Result<Reply> {
        let party = match step {
            Step::Issue | Step::Look | Step::LookKeyed | Step::Cancel => &mut self.issuer,
            Step::Grant | Step::EndGrant => &mut self.portal,
            Step::Use => &mut self.bank,
        };
        loop {
            let reply = party.try_send(call).await?;
            // Neither is an answer: nothing was decided.
            if matches!(reply.status, 429 | 503) && reply.json.get("receipt").is_none() {
                tokio::time::sleep(LATER).await;
                continue;
            }
            return Ok(reply);
        }
    }
}

/// One license, as far as its story went.
struct Story {
    number: u64,
    draft: Draft,
    issued: Option<Issued>,
    grant: Option<String>,
    uses: u32,
    grant_ended: bool,
    cancelled: bool,
    /// Asked and not answered.
    pending: Option<(Step, Call)>,
    /// The last answered request with an idempotency key.
    last: Option<(Step, Call, u16, Bytes)>,
}

impl Story {
    fn new(number: u64) -> Self {
        Self {
            number,
            draft: draft(&natural()),
            issued: None,
            grant: None,
            uses: 0,
            grant_ended: false,
            cancelled: false,
            pending: None,
            last: None,
        }
    }

    /// What is asked, in order.
    fn plan(&self) -> Vec<Step> {
        let mut plan = vec![Step::Issue, Step::Look, Step::Grant, Step::Use, Step::LookKeyed];
        if self.number.is_multiple_of(2) {
            plan.extend([Step::EndGrant, Step::Look]);
        }
        if self.number.is_multiple_of(3) {
            plan.extend([Step::Cancel, Step::Look]);
        }
        plan
    }

    /// The identifier, which follows from what is asked for.
    fn identifier(&self, issuer: &Party) -> String {
        let draft = &self.draft;
        let serial = draft.serial.parse().unwrap();
        let identifier =
            CertificateIdentifier::new(draft.license_type.code, issuer.organisation, serial, 1).unwrap();
        identifier.to_string()
    }

    /// A step's request, without an inline proof so that whole answers can be compared.
    fn call(&self, step: Step, parties: &Parties) -> Call {
        let issued = Issued {
            identifier: self.identifier(&parties.issuer),
            envelope: Vec::new(),
            draft: self.draft.clone(),
        };
        let call = match step {
            Step::Issue => self.draft.call(),
            Step::Look => issued.verify(None),
            Step::LookKeyed => issued.verify(None).key(&key()),
            Step::Grant => {
                let mut body = grant(self.draft.holder(), &parties.bank, Target::License(&issued));
                body["maxUses"] = json!(MAX_USES);
                Call::new(Route::GrantCreate, &body)
            }
            Step::Use => issued.verify(self.grant.as_deref()).key(&key()).in_new_case(),
            Step::EndGrant => revoke(self.draft.holder(), self.grant.as_deref().unwrap_or_default()),
            Step::Cancel => issued.operation("05", Some("04")),
        };
        call.without("receipt")
    }

    /// Takes in an answer, which must be what the story so far allows.
    fn take(&mut self, step: Step, call: Call, reply: &Reply) -> anyhow::Result<()> {
        let told = || format!("{step:?} of story {}: {} {}", self.number, reply.status, reply.json);
        let status = if matches!(step, Step::Issue | Step::Grant) { 201 } else { 200 };
        must(reply.status == status, told)?;
        match step {
            Step::Issue => self.issued = Some(Issued::new(self.draft.clone(), &reply.json)),
            Step::Look | Step::LookKeyed => {
                let (verdict, reasons) = match self.cancelled {
                    true => ("invalid", json!(["cancelled"])),
                    false => ("valid", json!([])),
                };
                let same = reply.json["verdict"] == verdict
                    && reply.json.get("reasons").unwrap_or(&json!([])) == &reasons;
                must(same, told)?;
            }
            Step::Grant => self.grant = reply.json["grant"].as_str().map(str::to_owned),
            Step::Use => self.uses += 1,
            Step::EndGrant => self.grant_ended = true,
            Step::Cancel => self.cancelled = true,
        }
        if step.is_keyed() {
            self.last = Some((step, call, reply.status, reply.body.clone()));
        }
        Ok(())
    }

    /// Asks the next thing; what is not answered stays pending. Whether it was answered.
    async fn ask(
        &mut self,
        step: Step,
        parties: &mut Parties,
        kept: &mut Vec<Reply>,
    ) -> anyhow::Result<bool> {
        let call = self.call(step, parties);
        // Whatever is not a whole answer acknowledges nothing.
        let Ok(reply) = parties.send(step, &call).await else {
            self.pending = Some((step, call));
            return Ok(false);
        };
        self.take(step, call, &reply)?;
        kept.push(reply);
        Ok(true)
    }

    /// Holds the story against the restarted exchange, whose log had `recovered` entries when it came up.
    async fn check(
        &mut self,
        parties: &mut Parties,
        recovered: u64,
        kept: &mut Vec<Reply>,
        seen: &mut Seen,
    ) -> anyhow::Result<()> {
        let pending = self.pending.take();
        let asked_last = pending.as_ref().map(|(step, _)| *step);
        match pending {
            Some((step, call)) if step.is_keyed() => {
                let effect = self.effect(step, parties, kept).await?;
                let reply = parties.send(step, &call).await?;
                self.take(step, call.clone(), &reply)?;
                let durable = reply.receipt().index < recovered;
                must(effect.is_none_or(|effect| effect == durable), || {
                    format!(
                        "{step:?} of story {} is half applied: its entry and its effect differ",
                        self.number
                    )
                })?;
                seen.in_doubt += 1;
                seen.durable += u64::from(durable);
                kept.push(reply);
                self.again(parties).await?;
                seen.again += 1;
            }
            Some(_) => {}
            None => {
                self.again(parties).await?;
                seen.again += 1;
            }
        }
        if self.issued.is_none() {
            return Ok(());
        }
        self.look(parties, kept).await?;
        let exactly = self.number.is_multiple_of(SPEND_EVERY)
            || matches!(asked_last, Some(Step::Use | Step::EndGrant | Step::Grant));
        if self.grant.is_some() && !self.cancelled && exactly {
            while !self.grant_ended && self.uses < MAX_USES {
                self.ask_now(Step::Use, parties, kept).await?;
            }
            let call = self.call(Step::Use, parties);
            let reply = parties.send(Step::Use, &call).await?;
            must(reply.code() == Code::NotPermitted.name(), || {
                format!(
                    "story {}: a grant that is used up or ended permits: {} {}",
                    self.number, reply.status, reply.json
                )
            })?;
            kept.push(reply);
            seen.spent += 1;
        }
        Ok(())
    }

    async fn ask_now(
        &mut self,
        step: Step,
        parties: &mut Parties,
        kept: &mut Vec<Reply>,
    ) -> anyhow::Result<()> {
        let answered = self.ask(step, parties, kept).await?;
        anyhow::ensure!(answered, "the exchange is gone while it is checked");
        Ok(())
    }

    /// Looks whether the license is there, in the right state, and opens.
    async fn look(&mut self, parties: &mut Parties, kept: &mut Vec<Reply>) -> anyhow::Result<()> {
        self.ask_now(Step::Look, parties, kept).await?;
        if let Some(issued) = self.issued.as_ref().filter(|_| !self.cancelled) {
            let open = issued.retrieve(&["certificateNumber"], None).without("receipt");
            let reply = parties.send(Step::Look, &open).await?;
            must(reply.status == 200, || {
                format!("the license of story {} does not open: {} {}", self.number, reply.status, reply.json)
            })?;
            kept.push(reply);
        }
        Ok(())
    }

    /// Whether what was asked has happened, seen from outside; `None` where only a repetition would tell.
    async fn effect(
        &self,
        step: Step,
        parties: &mut Parties,
        kept: &mut Vec<Reply>,
    ) -> anyhow::Result<Option<bool>> {
        if !matches!(step, Step::Issue | Step::Cancel) {
            return Ok(None);
        }
        let reply = parties.send(Step::Look, &self.call(Step::Look, parties)).await?;
        let effect = match step {
            Step::Issue => reply.status == 200,
            _ => reply.json["verdict"] == "invalid",
        };
        kept.push(reply);
        Ok(Some(effect))
    }

    /// The last request once more: the same bytes, which hold the same entry.
    async fn again(&mut self, parties: &mut Parties) -> anyhow::Result<()> {
        let Some((step, call, status, body)) = &self.last else { return Ok(()) };
        let reply = parties.send(*step, call).await?;
        must((reply.status, &reply.body) == (*status, body), || {
            format!(
                "{step:?} of story {} is answered otherwise when asked again: {}",
                self.number, reply.json
            )
        })
    }
}

/// What was found, for the rig's last line.
#[derive(Default)]
pub(crate) struct Seen {
    /// Requests without an answer.
    in_doubt: u64,
    /// Those of them whose entry was durable.
    durable: u64,
    /// Requests asked again, answered with the same bytes.
    again: u64,
    /// Grants used to their end.
    spent: u64,
}

/// All stories, and the log they must stand in.
#[derive(Default)]
pub(crate) struct Stories {
    /// Checked after their cut.
    told: Vec<Story>,
    /// Told since.
    fresh: Vec<Story>,
    answers: Vec<Reply>,
    next: Arc<AtomicU64>,
    log: Log,
    seen: Seen,
}

impl Stories {
    /// Callers tell stories until `cut` has cut the exchange down.
    pub(crate) async fn tell(
        &mut self,
        server: &mut Server,
        cut: impl AsyncFnOnce(&mut Server),
    ) -> anyhow::Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let parties = Parties::of(server);
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| tokio::spawn(caller(parties.again(), Arc::clone(&stop), Arc::clone(&self.next))))
            .collect();
        cut(server).await;
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            let (stories, answers) = caller.await??;
            self.fresh.extend(stories);
            self.answers.extend(answers);
        }
        Ok(())
    }

    /// Answers since the last check.
    pub(crate) fn unchecked(&self) -> usize {
        self.answers.len()
    }

    /// Checks what was told since the last check: receipts, states, repetitions.
    pub(crate) async fn check(&mut self, server: &Server) -> anyhow::Result<()> {
        let recovered = server.size().await;
        self.log.verify(server, &std::mem::take(&mut self.answers)).await?;
        let mut parties = Parties::of(server);
        let mut kept = Vec::new();
        for mut story in std::mem::take(&mut self.fresh) {
            story.check(&mut parties, recovered, &mut kept, &mut self.seen).await?;
            self.told.push(story);
        }
        self.answers = kept;
        Ok(())
    }

    /// Checks everything that was ever told: every receipt, every license.
    pub(crate) async fn check_all(&mut self, server: &Server) -> anyhow::Result<()> {
        self.check(server).await?;
        let mut parties = Parties::of(server);
        for story in self.told.iter_mut().filter(|story| story.issued.is_some()) {
            story.look(&mut parties, &mut self.answers).await?;
        }
        self.log.verify(server, &std::mem::take(&mut self.answers)).await
    }

    /// What was checked, in words.
    pub(crate) fn summary(&self) -> String {
        let Seen { in_doubt, durable, again, spent } = &self.seen;
        format!(
            "{} acknowledged entries and {} licenses found, {again} requests asked again, {in_doubt} in doubt of \
             which {durable} were durable, {spent} grants used to their end",
            self.log.acknowledged(),
            self.told.iter().filter(|story| story.issued.is_some()).count(),
        )
    }
}

async fn caller(
    mut parties: Parties,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
) -> anyhow::Result<(Vec<Story>, Vec<Reply>)> {
    let (mut stories, mut kept) = (Vec::new(), Vec::new());
    let mut alive = true;
    while alive && !stop.load(Ordering::Relaxed) {
        let mut story = Story::new(next.fetch_add(1, Ordering::Relaxed));
        for step in story.plan() {
            alive = story.ask(step, &mut parties, &mut kept).await?;
            if !alive {
                break;
            }
        }
        stories.push(story);
    }
    Ok((stories, kept))
}
