//! The content of a license to be signed: read from a request, checked against its type, signed.
//!
//! Issue and transition call it. Its signature is memory until the entry is durable; a crash loses one that nobody has.

use std::borrow::Cow;
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::holder::{HolderRef, gives_away};
use schemas::identifier::{LicenseTypeCode, Serial};
use schemas::license_type::{LicenseType, MAX_HOLDERS, MAX_VALUE_LENGTH, NamedHolder as TypeHolder};
use schemas::text;
use serde::Deserialize;
use verifier::license::{self as envelope, BodyHolder, LicenseContent};

use crate::gateway::case::{Case, Found};
use crate::gateway::change::Change;
use crate::gateway::permit::Disclosure;
use crate::participant::Participant;
use crate::wire::named::holder_of;
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CONTEXT_CHARS, Pairs, day, owned_words, type_code, unknown_type};

/// The content of a license to be signed.
#[derive(Debug)]
pub(crate) struct Draft {
    /// License type.
    pub type_code: LicenseTypeCode,
    /// Serial; never a holder's number.
    pub serial: Serial,
    /// 证照编号.
    pub certificate_number: String,
    /// Holders with the name that the license shows.
    pub holders: Vec<(String, HolderRef)>,
    /// Date of issue that the license shows.
    pub issue_date: Date,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; `None` = no end.
    pub valid_until: Option<Date>,
    /// Fields of the face.
    pub fields: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct License {
    type_code: String,
    serial: String,
    certificate_number: String,
    holders: Vec<NamedHolder>,
    issue_date: String,
    valid_from: String,
    valid_until: Option<String>,
    fields: Pairs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NamedHolder {
    name: String,
    type_code: String,
    number: String,
    as_registered: Option<bool>,
}

impl License {
    pub(crate) fn typed(self) -> Result<Draft, Refusal> {
        let mut wrong = Gather::new();
        let type_code = wrong.take(type_code(&self.type_code).under("typeCode"));
        let serial: Option<Serial> = wrong.take(self.serial.parse().map_err(|error| {
            Refusal::of(Code::BadSerial, Fault::identifier("/serial", &self.serial, error))
        }));
        if !(1..=MAX_HOLDERS).contains(&self.holders.len()) {
            let fault = Fault::at("/holders", Rule::Count).bounds(1, MAX_HOLDERS).got(self.holders.len());
            wrong.note(Refusal::of(Code::BadFields, fault));
        }
        let mut holders: Vec<(String, HolderRef)> = Vec::with_capacity(self.holders.len().min(MAX_HOLDERS));
        for (holder, place) in self.holders.into_iter().zip(0..MAX_HOLDERS) {
            let under = |refusal: Refusal| refusal.under(place).under("holders");
            let name = owned_words(Code::BadHolder, holder.name, MAX_CONTEXT_CHARS).under("name");
            let name = wrong.take(name.map_err(under));
            let reference = holder_of(&holder.type_code, &holder.number, holder.as_registered);
            let reference = reference.map_err(|error| under(Refusal::holder(&holder.number, error)));
            let Some((name, reference)) = name.zip(wrong.take(reference)) else { continue };
            if holders.iter().any(|(_, other)| *other == reference) {
                wrong.note(under(Refusal::of(Code::BadHolder, Fault::at("/number", Rule::Distinct))));
            }
            holders.push((name, reference));
        }
        // A serial stands in every identifier, so a holder's number there would publish it.
        let published = serial
            .as_ref()
            .is_some_and(|serial| gives_away(serial.as_str(), holders.iter().map(|(_, holder)| holder)));
        if published {
            let fault = Fault::at("/serial", Rule::NotAllowed).form("no holder's number");
            wrong.note(Refusal::of(Code::BadSerial, fault));
        }
        let number = owned_words(Code::BadFields, self.certificate_number, MAX_CONTEXT_CHARS);
        let certificate_number = wrong.take(number.under("certificateNumber"));
        let mut fields = Vec::with_capacity(self.fields.0.len());
        for ((key, value), position) in self.fields.0.into_iter().zip(1..) {
            let length = value.chars().count();
            if length > MAX_VALUE_LENGTH {
                let fault = Fault::at("/fields", Rule::Length).position(position).bounds(0, MAX_VALUE_LENGTH);
                wrong.note(Refusal::of(Code::BadFields, fault.got(length)));
            } else {
                let composed = match text::nfc(&value) {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(composed) => Some(composed),
                };
                fields.push((key, composed.unwrap_or(value)));
            }
        }
        let mut date = |name: &str, text: &str| wrong.take(day(Code::BadFields, text).under(name));
        let issue_date = date("issueDate", &self.issue_date);
        let valid_from = date("validFrom", &self.valid_from);
        let valid_until = match &self.valid_until {
            None => Some(None),
            Some(text) => date("validUntil", text).map(Some),
        };
        let typed = || {
            Some(Draft {
                type_code: type_code?,
                serial: serial?,
                certificate_number: certificate_number?,
                holders,
                issue_date: issue_date?,
                valid_from: valid_from?,
                valid_until: valid_until?,
                fields,
            })
        };
        wrong.all(typed())
    }
}

pub(crate) fn entitled_type(
    case: &mut Case<'_>,
    caller: &Participant,
    code: &LicenseTypeCode,
) -> Result<Arc<LicenseType>, Refusal> {
    let license_type = case.license_type(code).ok_or_else(|| unknown_type("/license/typeCode"))?;
    if caller.issues.contains(code) { Ok(license_type) } else { Err(Refusal::new(Code::WrongRole)) }
}

pub(crate) fn check_draft(license_type: &LicenseType, draft: &Draft) -> Result<(), Refusal> {
    let holders: Vec<TypeHolder<'_>> =
        draft.holders.iter().map(|(name, holder)| TypeHolder { name, holder }).collect();
    license_type.check(&holders, &draft.fields, draft.valid_until, draft.valid_from).map_err(|errors| {
        let faults = errors.into_iter().map(|error| Fault::field(license_type, &draft.fields, error));
        Refusal::all(Code::BadFields, faults.collect()).under("license")
    })
}

/// A new version, and a license that takes another over, stay with the same holders.
pub(crate) fn same_holders(case: &mut Case<'_>, draft: &Draft, found: &Found) -> bool {
    draft.holders.len() == found.license.holders.len()
        && draft.holders.iter().all(|(_, holder)| {
            case.holder(holder).is_some_and(|known| found.license.holders.contains(&known.label))
        })
}

/// Signs a license: its envelope. Only with the right to make one.
///
/// # Errors
/// The signer is not there, or cannot sign this.
pub(crate) async fn sign(
    change: &Change<'_>,
    _right: Disclosure,
    draft: &Draft,
    identifier: &str,
) -> Result<Vec<u8>, Refusal> {
    let caller = change.caller();
    let internal = || Refusal::new(Code::Internal);
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).map_err(|_| internal())?;
    let issued_at = change.entry().now_ms / 1_000;
    let content = LicenseContent {
        identifier: Refusal::parse(identifier)?,
        certificate_number: draft.certificate_number.clone(),
        issuer_name: caller.name.clone(),
        holders: draft
            .holders
            .iter()
            .map(|(name, holder)| BodyHolder {
                name: name.clone(),
                type_code: holder.type_code().as_str().to_owned(),
                number: holder.number().to_owned(),
                as_registered: holder.is_as_registered(),
            })
            .collect(),
        issue_date: draft.issue_date,
        valid_from: draft.valid_from,
        valid_until: draft.valid_until,
        issued_at,
        fields: draft.fields.clone(),
    };
    let body = envelope::encode_body(&content, &nonce);
    let signers = change.tools().signers.get();
    let signatures = signers.sign(&caller.organisation, &draft.type_code, &body, issued_at).await?;
    Ok(envelope::encode_envelope(&body, &signatures))
}
