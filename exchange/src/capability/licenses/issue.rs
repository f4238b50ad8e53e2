//! `POST /v1/licenses`: an authority has a license signed.
//!
//! The path alone calls it. The license is in its entry's frame: a crash leaves both or neither.

use ledger::Label;
use ledger::record::LicenseState;
use schemas::codes::Code;
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::routes::Route;
use schemas::state::LicenseState as Standing;
use serde::Deserialize;

use super::draft::{self, Draft, License, check_draft, entitled_type};
use crate::capability::Capability;
use crate::gateway::case::{Absent, Case, Found};
use crate::gateway::change::Change;
use crate::gateway::names::{About, Names, Person};
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::wire::object::Object;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Placed as _, Refusal};

/// The capability.
pub(crate) struct Issue;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    license: License,
}

/// A first version that may be signed.
#[derive(Debug)]
pub(crate) struct First {
    identifier: CertificateIdentifier,
    absent: Absent,
    /// The license that is taken over by it (operation 08).
    predecessor: Option<Found>,
}

impl Capability<'_> for Issue {
    const ROUTE: Route = Route::Issue;
    type Asked = Draft;
    type Granted = First;

    fn read(body: Body<'_>) -> Result<Draft, Refusal> {
        json::<Request>(body.bytes)?.license.typed().under("license")
    }

    fn names<'a>(asked: &'a Draft, caller: &Uscc) -> Names<'a> {
        let identifier = CertificateIdentifier::new(asked.type_code, *caller, asked.serial.clone(), 1);
        let about = identifier.map_or(About::Nothing, About::New);
        Names { about, persons: persons(asked), ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Draft) -> Result<Ruling<First>, Refusal> {
        let (first, concerned) = first(case, caller, asked, None)?;
        Ok(Ruling::plain(first, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Draft,
        permit: Permit<First>,
    ) -> Result<Vec<u8>, Refusal> {
        let (first, right) = permit.into_parts();
        sign_first(change, right, asked, first).await
    }
}

/// The holders of a draft, whom its entry concerns.
pub(super) fn persons(draft: &Draft) -> Vec<Person<'_>> {
    let holders = draft.holders.iter();
    holders.map(|(_, holder)| Person { holder, named: None, is_concerned: true }).collect()
}

/// Whether an authority may have a first version signed, with the labels of its holders that the log knows.
pub(super) fn first(
    case: &mut Case<'_>,
    caller: &Participant,
    draft: &Draft,
    predecessor: Option<Found>,
) -> Result<(First, Vec<Label>), Refusal> {
    let license_type = entitled_type(case, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let identifier =
        CertificateIdentifier::new(draft.type_code, caller.organisation, draft.serial.clone(), 1)
            .map_err(|_| Refusal::new(Code::BadIdentifier))?;
    let absent = match case.license_at(keyed::license_key(case.keyed(), &identifier)) {
        Err(absent) => absent,
        Ok(found) => {
            // The caller's own license: its type, issuer and serial are the ones that were sent.
            let version = found.license.certificate_version;
            let existing = CertificateIdentifier::new(
                draft.type_code,
                caller.organisation,
                draft.serial.clone(),
                version,
            )
            .map_err(|_| Refusal::new(Code::Internal))?;
            return Err(Refusal::new(Code::IdentifierExists).of_license(&existing));
        }
    };
    // Holders are facts: a holder that appears meanwhile has a label and a key of its own.
    let known = draft.holders.iter().filter_map(|(_, holder)| case.holder(holder));
    let concerned = known.map(|holder| holder.label).collect();
    Ok((First { identifier, absent, predecessor }, concerned))
}

/// Signs a first version and writes it; the answer.
pub(super) async fn sign_first(
    change: &mut Change<'_>,
    right: Disclosure,
    draft: &Draft,
    first: First,
) -> Result<Vec<u8>, Refusal> {
    let First { identifier, absent, predecessor } = first;
    let text = identifier.to_string();
    let envelope = draft::sign(change, right, draft, &text).await?;
    let holders = change.held_by(draft.holders.iter().map(|(_, holder)| holder))?;
    let keyed = change.tools().ledger.keyed();
    let license = LicenseState {
        key: absent.key(),
        version: 1,
        state: Standing::Valid.number(),
        certificate_version: identifier.version(),
        valid_from_day: draft.valid_from.days(),
        valid_until_day: draft.valid_until.map_or(i32::MAX, |day| day.days()),
        taken_over: false,
        written_by_04: false,
        number_tag: keyed::number_tag(keyed, &draft.type_code, &draft.certificate_number),
        holders,
        body_part: 0,
    };
    change.new_license(absent, license);
    if let Some(found) = predecessor {
        change.license(&found, |next| LicenseState { taken_over: true, ..next });
    }
    let answer = issue_answer(&text, &envelope);
    change.keep_envelope(envelope);
    change.names().identifiers.push(text.into());
    Ok(answer)
}

/// The answer to whoever had a license signed: what follows from its envelope alone, so that it can be given again.
pub(crate) fn issue_answer(identifier: &str, envelope: &[u8]) -> Vec<u8> {
    let mut answer = Object::for_bytes(envelope);
    answer.text("identifier", identifier);
    answer.text("state", Standing::Valid.code());
    answer.base64("envelope", envelope);
    answer.end()
}
