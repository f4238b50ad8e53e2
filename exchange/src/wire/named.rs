//! How requests name persons, licenses and what a use is for.
//!
//! Pure functions over a body; nothing to lose.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use schemas::codes::{Code, Rule};
use schemas::holder::{HolderError, HolderRef};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::kinds::Scenario;
use schemas::machine as fb;
use serde::Deserialize;

use super::refusal::{Fault, Gather, Placed as _, Refusal};
use super::text::{MAX_CAUSE_CHARS, MAX_CONTEXT_CHARS, Text, type_code, words};

/// A license named without its bytes.
#[derive(Debug)]
pub enum Named<'a> {
    /// By identifier of a version.
    Identifier {
        /// The identifier.
        identifier: CertificateIdentifier,
        /// Its text as received, which is how it prints.
        text: Cow<'a, str>,
    },
    /// By type, 证照编号 and holder.
    Number {
        /// License type.
        type_code: LicenseTypeCode,
        /// 证照编号.
        certificate_number: String,
        /// Holder.
        holder: HolderRef,
    },
}

impl Named<'_> {
    /// The type of the license.
    pub(crate) fn type_code(&self) -> LicenseTypeCode {
        match self {
            Self::Identifier { identifier, .. } => identifier.type_code(),
            Self::Number { type_code, .. } => *type_code,
        }
    }
}

/// The license of a verify request.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    /// A license named.
    Named(Named<'a>),
    /// The envelope itself.
    Envelope(Vec<u8>),
}

/// The context of a use (用证信息): the user, the purpose and the case. All six are required.
#[derive(Clone, Debug)]
pub struct UseContext<'a> {
    /// Person at the caller, as the caller names them.
    pub user_name: Cow<'a, str>,
    /// Service item code (事项编码).
    pub item_code: Cow<'a, str>,
    /// Service item name.
    pub item_name: Cow<'a, str>,
    /// Case number (办件编号).
    pub business_code: Cow<'a, str>,
    /// Why (用证事由).
    pub cause: Cow<'a, str>,
    /// Stage: 申办, 受理, 审核, 决定 or 送达.
    pub stage: Cow<'a, str>,
    /// Delay class, for a use that the law keeps from its holder for a time.
    pub delay: Option<Cow<'a, str>>,
    /// Purpose, for a grant that is for one.
    pub purpose: Option<Cow<'a, str>>,
    /// Field of use (用证场景), for a grant that is for one.
    pub scenario: Option<Scenario>,
    /// The organisation that the caller stands for.
    pub acting_for: Option<Uscc>,
    /// Assertion of the identity provider that the user is who the use names.
    pub assertion: Option<Cow<'a, str>>,
}

/// Stages of a case (环节).
pub(crate) const STAGES: [&str; 5] = ["申办", "受理", "审核", "决定", "送达"];

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Holder<'a> {
    #[serde(borrow)]
    type_code: Text<'a>,
    number: Text<'a>,
    as_registered: Option<bool>,
}

/// A wrong check character is taken where the request says that a registrar gave the number out like this.
pub(crate) fn holder_of(
    type_code: &str,
    number: &str,
    as_registered: Option<bool>,
) -> Result<HolderRef, HolderError> {
    let read = if as_registered.unwrap_or(false) { HolderRef::as_registered } else { HolderRef::new };
    read(type_code, number)
}

impl Holder<'_> {
    pub(crate) fn typed(self) -> Result<HolderRef, Refusal> {
        holder_of(&self.type_code, &self.number, self.as_registered)
            .map_err(|error| Refusal::holder(&self.number, error))
    }
}

impl<'a> From<fb::Holder<'a>> for Holder<'a> {
    fn from(holder: fb::Holder<'a>) -> Self {
        Self {
            type_code: holder.type_code().into(),
            number: holder.number().into(),
            as_registered: Some(holder.as_registered()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct LicenseName<'a> {
    #[serde(borrow)]
    identifier: Option<Text<'a>>,
    type_code: Option<Text<'a>>,
    certificate_number: Option<Text<'a>>,
    holder: Option<Holder<'a>>,
    envelope: Option<Envelope<'a>>,
}

/// An envelope as it was sent.
#[derive(Deserialize)]
#[serde(from = "Text<'a>")]
enum Envelope<'a> {
    /// In JSON, base64.
    Base64(Text<'a>),
    /// By a machine peer.
    Bytes(&'a [u8]),
}

impl<'a> From<Text<'a>> for Envelope<'a> {
    fn from(text: Text<'a>) -> Self {
        Self::Base64(text)
    }
}

impl<'a> LicenseName<'a> {
    pub(crate) fn named(self) -> Result<Named<'a>, Refusal> {
        match self {
            Self {
                identifier: Some(text),
                type_code: None,
                certificate_number: None,
                holder: None,
                envelope: None,
            } => Ok(Named::Identifier {
                identifier: Refusal::parse(&text).under("identifier")?,
                text: text.into_inner(),
            }),
            Self {
                identifier: None,
                type_code: Some(code),
                certificate_number: Some(number),
                holder: Some(holder),
                envelope: None,
            } => {
                let mut wrong = Gather::new();
                let type_code = wrong.take(type_code(&code).under("typeCode"));
                // Blanks at the ends of a number that is looked up mean nothing.
                let number = words(Code::MalformedRequest, number.trim().into(), MAX_CONTEXT_CHARS);
                let certificate_number = wrong.take(number.map(Cow::into_owned).under("certificateNumber"));
                let holder = wrong.take(holder.typed().under("holder"));
                let typed = || {
                    let (type_code, holder) = (type_code?, holder?);
                    Some(Named::Number { type_code, certificate_number: certificate_number?, holder })
                };
                wrong.all(typed())
            }
            other => Err(Refusal::all(Code::MalformedRequest, other.mixed())),
        }
    }

    /// The faults of the members together.
    fn mixed(&self) -> Vec<Fault> {
        let by_number = [
            ("/typeCode", self.type_code.is_some()),
            ("/certificateNumber", self.certificate_number.is_some()),
            ("/holder", self.holder.is_some()),
        ];
        let otherwise = self.identifier.is_some() || self.envelope.is_some();
        if otherwise || by_number.iter().all(|(_, there)| !there) {
            let ways = "identifier; or typeCode, certificateNumber and holder; or, to verify, envelope";
            return vec![Fault::at("", Rule::Combination).form(ways)];
        }
        let missing = by_number.iter().filter(|(_, there)| !there);
        missing.map(|(pointer, _)| Fault::at(*pointer, Rule::Required)).collect()
    }

    pub(crate) fn subject(self) -> Result<Subject<'a>, Refusal> {
        match self {
            Self {
                identifier: None,
                type_code: None,
                certificate_number: None,
                holder: None,
                envelope: Some(envelope),
            } => Ok(Subject::Envelope(match envelope {
                Envelope::Base64(text) => BASE64.decode(text.as_bytes()).map_err(|_| {
                    let fault = Fault::at("/envelope", Rule::Pattern).form("base64 (RFC 4648 section 4)");
                    Refusal::of(Code::BadEnvelope, fault.got(text.chars().count()))
                })?,
                Envelope::Bytes(bytes) => bytes.to_vec(),
            })),
            other => Ok(Subject::Named(other.named()?)),
        }
    }
}

impl<'a> From<fb::LicenseName<'a>> for LicenseName<'a> {
    fn from(name: fb::LicenseName<'a>) -> Self {
        Self {
            identifier: name.identifier().map(Text::from),
            type_code: name.type_code().map(Text::from),
            certificate_number: name.certificate_number().map(Text::from),
            holder: name.holder().map(Holder::from),
            envelope: name.envelope().map(|envelope| Envelope::Bytes(envelope.bytes())),
        }
    }
}

/// The use context's object; a missing member is a bad use context, not a malformed request.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ContextValue<'a> {
    #[serde(borrow)]
    user_name: Option<Text<'a>>,
    item_code: Option<Text<'a>>,
    item_name: Option<Text<'a>>,
    business_code: Option<Text<'a>>,
    cause: Option<Text<'a>>,
    stage: Option<Text<'a>>,
    delay: Option<Text<'a>>,
    purpose: Option<Text<'a>>,
    scenario: Option<Text<'a>>,
    acting_for: Option<Text<'a>>,
    assertion: Option<Text<'a>>,
}

/// A field of use by its name.
pub(crate) fn scenario(code: Code, name: &str) -> Result<Scenario, Refusal> {
    Scenario::from_name(name).ok_or_else(|| {
        let names = Scenario::ALL.iter().map(|scenario| scenario.name());
        Refusal::of(code, Fault::at("", Rule::OneOf).one_of(names).got(name.chars().count()))
    })
}

pub(crate) fn context<'a>(value: Option<ContextValue<'a>>) -> Result<UseContext<'a>, Refusal> {
    let bad = |fault| Refusal::of(Code::BadUseContext, fault);
    let value = value.ok_or_else(|| bad(Fault::at("/use", Rule::Required).form("object")))?;
    let mut wrong = Gather::new();
    let mut part = |name: &str, text: Option<Text<'a>>, max| match text {
        Some(text) => wrong.take(words(Code::BadUseContext, text.into_inner(), max).under(name)),
        None => {
            wrong.note(bad(Fault::at("", Rule::Required).bounds(1, max)).under(name));
            None
        }
    };
    let user_name = part("userName", value.user_name, MAX_CONTEXT_CHARS);
    let item_code = part("itemCode", value.item_code, MAX_CONTEXT_CHARS);
    let item_name = part("itemName", value.item_name, MAX_CONTEXT_CHARS);
    let business_code = part("businessCode", value.business_code, MAX_CONTEXT_CHARS);
    let cause = part("cause", value.cause, MAX_CAUSE_CHARS);
    let delay = match value.delay {
        None => Some(None),
        class => part("delay", class, MAX_CONTEXT_CHARS).map(Some),
    };
    let purpose = match value.purpose {
        None => Some(None),
        purpose => part("purpose", purpose, MAX_CONTEXT_CHARS).map(Some),
    };
    let named = value.scenario.as_deref().map(|name| scenario(Code::BadUseContext, name)).transpose();
    let scenario = wrong.take(named.under("scenario"));
    let acting_for = value.acting_for.as_deref().map(Refusal::parse::<Uscc>).transpose();
    let acting_for = wrong.take(acting_for.under("actingFor"));
    let stage = value.stage.map(Text::into_inner);
    let known = stage.as_deref().is_some_and(|stage| STAGES.contains(&stage));
    if !known {
        let rule = if stage.is_some() { Rule::OneOf } else { Rule::Required };
        let fault = Fault::at("/stage", rule).one_of(STAGES);
        let got = stage.as_ref().map(|stage| stage.chars().count());
        wrong.note(bad(got.into_iter().fold(fault, Fault::got)));
    }
    let typed = || {
        Some(UseContext {
            user_name: user_name?,
            item_code: item_code?,
            item_name: item_name?,
            business_code: business_code?,
            cause: cause?,
            stage: stage?,
            delay: delay?,
            purpose: purpose?,
            scenario: scenario?,
            acting_for: acting_for?,
            assertion: value.assertion.map(Text::into_inner),
        })
    };
    wrong.all(typed()).under("use")
}

impl<'a> From<fb::UseContext<'a>> for ContextValue<'a> {
    fn from(context: fb::UseContext<'a>) -> Self {
        Self {
            user_name: context.user_name().map(Text::from),
            item_code: context.item_code().map(Text::from),
            item_name: context.item_name().map(Text::from),
            business_code: context.business_code().map(Text::from),
            cause: context.cause().map(Text::from),
            stage: context.stage().map(Text::from),
            delay: context.delay().map(Text::from),
            purpose: context.purpose().map(Text::from),
            scenario: context.scenario().map(Text::from),
            assertion: context.assertion().map(Text::from),
            acting_for: context.acting_for().map(Text::from),
        }
    }
}
