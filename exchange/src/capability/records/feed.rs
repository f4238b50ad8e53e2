//! `POST /v1/records/feed`: the rows of a hosted resource in the order in which they came, for who has an approval that says so. Downward
//! (回流) a county reads the rows of its regions, upward (归集) a province reads all of them, both from where they left off.
//!
//! The path alone calls it. A page is one entry that concerns everybody whose row is in it, so a crash leaves the page in each trace, or
//! nothing that was given.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::record::CounterUse;
use ledger::{Key, KeyedHash, Label, Ledger, Moved, ReadError, Step};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::{Code, Reason, Rule};
use schemas::date::rfc3339;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::resource::Supply;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::query::{self, Approval, Approved, approved};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::quality::freshness;
use crate::sharing::region::{Left, StoredRow, may_have, noted};
use crate::wire::named::{ContextValue, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Refusal};
use crate::wire::text::Text;

/// Most rows and removals of a page: the entry is sealed for everybody whose row is in it.
const MAX_SHOWN: usize = 200;
/// Most rows that a page looks at: where few are of the caller's regions, the rest is left to the next pages.
const MAX_LOOKED_AT: usize = 5_000;
/// Bytes of rows with which a page ends: its entry has them for everybody in it, and fits a group.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// How much of a resource the entry says was read.
const MODE: &str = "feed";

/// The capability.
pub(crate) struct Feed;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource: Text<'a>,
    after: Option<String>,
    limit: Option<u64>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A question for a page.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The use, which names no row.
    within: query::Asked<'a>,
    after: Option<Sealed>,
    limit: usize,
}

/// Where a reader stands. It goes out sealed for its approval: nobody reads of it how much there is of others, and nobody makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor {
    step: Step,
    /// The last entry with rows when the reader began. Rows up to it were read once at most, so those not shown need not
    /// be taken back.
    begun: u64,
}

/// A cursor as it goes out: a nonce, and the cursor under the key of its approval.
type Sealed = [u8; Cursor::SEALED_BYTES];

/// A page that may be read.
#[derive(Debug)]
pub(crate) struct Granted {
    rows: Label,
    approved: Approved,
    /// The day whose limit counts.
    today: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    resource: &'a str,
    changes: Vec<Shown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    masked: Vec<&'a str>,
    next: String,
    /// There is more by now.
    more: bool,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    approval: Approval<'a>,
    as_of: String,
}

/// A row, or that the reader has it no longer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// Names the row to this approval alone: its key is not among the fields of each approval.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

/// A page as it was read.
struct Page {
    changes: Vec<Shown>,
    /// The persons that these rows are about.
    subjects: Vec<HolderRef>,
    next: Cursor,
    more: bool,
}

impl<'r> Capability<'r> for Feed {
    const ROUTE: Route = Route::RecordsFeed;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let within = &asked.within;
        Names {
            context: Some(&within.context),
            resource: Some(&within.resource),
            mode: Some(MODE),
            ..Names::default()
        }
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        let approved = approved(case, caller, &asked.within, Supply::Hosted)?;
        if !approved.terms.feed {
            let mut access = query::access(case, &approved.listed.resource, &asked.within);
            access.template["scope"]["feed"] = true.into();
            let refusal = Refusal::explained(Code::ApprovalNeeded, Reason::OutsideApproval);
            return Err(refusal.with_access(access));
        }
        let rows = approved.listed.rows_label().ok_or_else(|| Refusal::new(Code::Internal))?;
        let today = case.today();
        if room(&approved, case.counter(&approved.application, today)) == 0 {
            return Err(Refusal::new(Code::QuotaSpent));
        }
        Ok(Ruling::plain(Granted { rows, approved, today }, Vec::new()).approved(caller, case, None))
    }

    fn changed_ms(granted: &Granted) -> u64 {
        granted.approved.changed_ms
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        // With the permit, the right to read goes into the lane.
        let (Granted { rows, approved, today }, _right) = permit.into_parts();
        let (ledger, application) = (change.tools().ledger.clone(), approved.application);
        let used = ledger.state().counter(&application, today);
        let room = room(&approved, used);
        let most = asked.limit.min(room);
        let keeper = CursorKey::new(change.tools().ledger.keyed(), &application)?;
        let after = asked.after.map(|sealed| {
            let fault = || Fault::at("/after", Rule::Unknown).form("`next` of a page of this approval");
            // One of a log that was longer is behind what came since.
            let known = keeper.open(sealed).filter(|cursor| cursor.step.order <= ledger.size());
            known.ok_or_else(|| Refusal::of(Code::MalformedRequest, fault()))
        });
        let after = after.transpose()?;
        let approved = Arc::new(approved);
        let reading = Arc::clone(&approved);
        let lane = &change.tools().lanes.pages;
        let page = lane.run(*change.entry().organisation, move || {
            Reading { ledger: &ledger, rows: &rows, approved: &reading }.page(after, most)
        });
        let Page { changes, subjects, next, more } = page.await.map_err(Refusal::new)??;
        let Approved { listed, terms, purpose, first_use, .. } = &*approved;
        if let Some((place, application)) = first_use {
            change.keep(*place, application);
        }
        if let Some(limit) = terms.daily_limit {
            // A page without a row costs one: it says that there is none.
            let amount = u32::try_from(changes.len()).unwrap_or(u32::MAX).max(1);
            let counter = CounterUse { key: application, day: today, amount, limit };
            change.count(counter, || Refusal::new(Code::QuotaSpent))?;
        }
        for subject in &subjects {
            change.concern(subject)?;
        }
        change.apart();
        change.names().fields = terms.fields.iter().map(|field| Cow::Owned(field.clone())).collect();
        let resource = &listed.resource;
        let shown = resource.fields.iter().filter(|field| terms.fields.contains(&field.key));
        let masked = shown.filter(|field| field.is_masked() && !terms.clear.contains(&field.key));
        let fresh = freshness(change.tools().ledger, resource, &rows, change.entry().now_ms);
        Ok(answer(&Answer {
            resource: &resource.code,
            changes,
            masked: masked.map(|field| field.key.as_str()).collect(),
            next: hex::encode(keeper.seal(&next)?),
            more,
            stale: fresh.stale,
            stale_since: fresh.stale_since(),
            approval: Approval::new(application, purpose, terms),
            as_of: change.as_of(),
        }))
    }
}

/// How many rows the approval still allows of the day.
fn room(approved: &Approved, used: u32) -> usize {
    let left = approved.terms.daily_limit.map_or(u32::MAX, |limit| limit.saturating_sub(used));
    usize::try_from(left).unwrap_or(usize::MAX)
}

/// A row as a reader sees it.
enum Seen {
    Row {
        shown: Shown,
        /// Whose it is.
        subject: Option<HolderRef>,
        length: usize,
    },
    /// It is gone, or of another region by now.
    Left,
    /// It was never this reader's.
    Others,
}

/// A page under way.
struct Reading<'a> {
    ledger: &'a Ledger,
    rows: &'a Label,
    approved: &'a Approved,
}

impl Reading<'_> {
    fn page(&self, after: Option<Cursor>, most: usize) -> Result<Page, Refusal> {
        let rows = self.ledger.rows();
        // Before the rows: what comes meanwhile is behind the beginning.
        let begin = || Cursor { step: Step::default(), begun: rows.last_order(self.rows) };
        let mut next = after.unwrap_or_else(begin);
        let moved = rows.moved(self.rows, after.as_ref().map(|after| &after.step), MAX_LOOKED_AT + 1);
        let moved = moved.map_err(unreadable)?;
        let (mut changes, mut subjects) = (Vec::new(), Vec::new());
        let (mut more, mut bytes) = (false, 0);
        for (looked_at, moved) in moved.iter().enumerate() {
            if changes.len() == most || looked_at == MAX_LOOKED_AT || bytes >= MAX_PAGE_BYTES {
                more = true;
                break;
            }
            match self.seen(moved, next.step)? {
                Seen::Row { shown, subject, length } => {
                    subjects.extend(subject);
                    changes.push(shown);
                    bytes += length;
                }
                // The reader may have it from before.
                Seen::Left if moved.step.order > next.begun => changes.push(self.removed(&moved.step.row)),
                Seen::Left | Seen::Others => {}
            }
            next.step = moved.step;
        }
        Ok(Page { changes, subjects, next, more })
    }

    /// The part of a row that a reader who stands at a step is told.
    fn seen(&self, moved: &Moved, stands: Step) -> Result<Seen, Refusal> {
        let Approved { listed, terms, .. } = self.approved;
        let resource = &listed.resource;
        let row = &moved.step.row;
        let gone = |left: &[Left]| {
            if may_have(terms, left, row, stands) { Seen::Left } else { Seen::Others }
        };
        let rows = self.ledger.rows();
        let Some(place) = &moved.place else {
            let note = moved.note.as_ref().map(|note| rows.read(note)).transpose().map_err(unreadable)?;
            return Ok(gone(&note.map(|note| noted(&note)).unwrap_or_default()));
        };
        let plain = rows.read(place).map_err(unreadable)?;
        let stored = StoredRow::decode(&plain).ok_or_else(|| Refusal::new(Code::RecordUnavailable))?;
        let region = resource.region.as_ref().and_then(|field| stored.value(field));
        if !terms.sees(region) {
            return Ok(gone(stored.left()));
        }
        let subject = resource.subject.as_ref().map(|subject| {
            let number = stored.value(&subject.field);
            let holder = number.and_then(|number| HolderRef::new(&subject.type_code, number).ok());
            // A row about somebody leaves with an entry in that person's trace, or not at all.
            holder.ok_or_else(|| Refusal::new(Code::RecordUnavailable))
        });
        let subject = subject.transpose()?;
        let shown = Shown {
            id: self.id(&moved.step.row),
            record: Some(query::shown(resource, terms, &terms.fields, &stored).0),
            updated_at: Some(rfc3339(stored.at_ms)),
            removed: false,
        };
        Ok(Seen::Row { shown, subject, length: plain.len() })
    }

    fn removed(&self, row: &Key) -> Shown {
        Shown { id: self.id(row), record: None, updated_at: None, removed: true }
    }

    fn id(&self, row: &Key) -> String {
        row_id(self.ledger.keyed(), &self.approved.application, row)
    }
}

fn row_id(keyed: &KeyedHash, application: &Key, row: &Key) -> String {
    hex::encode(keyed.key("feed", &[application, row]))
}

fn unreadable(error: ReadError) -> Refusal {
    match error {
        ReadError::KeyGone => Refusal::new(Code::Erased),
        error => {
            tracing::error!(%error, "rows of a hosted resource cannot be read");
            Refusal::new(Code::RecordUnavailable)
        }
    }
}

impl Cursor {
    const BYTES: usize = 32;
    const SEALED_BYTES: usize = NONCE_LEN + Self::BYTES + 16;

    fn encode(&self) -> Vec<u8> {
        [&self.step.order.to_be_bytes()[..], &self.step.row, &self.begun.to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (order, rest) = bytes.split_first_chunk()?;
        let (row, begun) = rest.split_first_chunk()?;
        let step = Step { order: u64::from_be_bytes(*order), row: *row };
        Some(Self { step, begun: u64::from_be_bytes(begun.try_into().ok()?) })
    }
}

/// Seals the cursors of an approval.
struct CursorKey(LessSafeKey);

impl CursorKey {
    fn new(keyed: &KeyedHash, application: &Key) -> Result<Self, Refusal> {
        let key = UnboundKey::new(&AES_128_GCM, &keyed.key("feed-cursor", &[application]));
        key.map(|key| Self(LessSafeKey::new(key))).map_err(|_| Refusal::new(Code::Internal))
    }

    fn seal(&self, cursor: &Cursor) -> Result<Vec<u8>, Refusal> {
        let internal = |_| Refusal::new(Code::Internal);
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(internal)?;
        let mut bytes = cursor.encode();
        let at = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(at, Aad::empty(), &mut bytes).map_err(internal)?;
        Ok([&nonce[..], &bytes].concat())
    }

    /// The cursor, if it was sealed for this approval.
    fn open(&self, sealed: Sealed) -> Option<Cursor> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        Cursor::decode(self.0.open_in_place(nonce, Aad::empty(), &mut bytes).ok()?)
    }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let bad = |fault| Refusal::of(Code::MalformedRequest, fault);
        let after = self.after.map(|text| {
            let fault = || Fault::at("/after", Rule::Pattern).form("[0-9a-f]{120}");
            let mut sealed = [0; Cursor::SEALED_BYTES];
            hex::decode_to_slice(text, &mut sealed).map(|()| sealed).map_err(|_| bad(fault()))
        });
        let after = wrong.take(after.transpose());
        let limit = self.limit.map_or(Some(MAX_SHOWN), |limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| (1..=MAX_SHOWN).contains(limit));
        let fault = || Fault::at("/limit", Rule::Range).bounds(1, MAX_SHOWN);
        let limit = wrong.take(limit.ok_or_else(|| bad(fault())));
        let context = wrong.take(context(self.context));
        let typed = || {
            let within = query::Asked::of(self.resource.into_inner(), context?);
            Some(Asked { within, after: after?, limit: limit? })
        };
        wrong.all(typed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_sealed_for_its_approval_and_nothing_else_is() {
        let keyed = KeyedHash::new(&[7; 32]);
        let [own, other] = [1, 2].map(|n| CursorKey::new(&keyed, &[n; 16]).expect("a key"));
        let cursor = Cursor { step: Step { order: 7, row: [9; 16] }, begun: 11 };
        let sealed: Sealed = own.seal(&cursor).expect("sealed").try_into().expect("its length");
        assert_eq!((own.open(sealed), other.open(sealed)), (Some(cursor), None));
        assert!(sealed.windows(16).all(|part| part != [9; 16]), "no row is named in it");
        for at in 0..sealed.len() {
            let mut forged = sealed;
            forged[at] ^= 1;
            assert_eq!(own.open(forged), None);
        }
    }

    #[test]
    fn a_row_has_another_name_for_another_approval() {
        let keyed = KeyedHash::new(&[7; 32]);
        let id = |application: u8, row: u8| row_id(&keyed, &[application; 16], &[row; 16]);
        assert_eq!(id(1, 2), id(1, 2));
        assert!(id(1, 2) != id(2, 2) && id(1, 2) != id(1, 3));
    }
}
