//! Whom and what a request is about, said once by its route. From it follows whom a denial concerns, what the holders concerned
//! are told, the delay class, and how a denial is made equal for what exists and what does not.
//!
//! Each route says them, and the path reads them. They go with the request.

use std::borrow::Cow;

use ledger::{Key, Label};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::kinds::{Scenario, Verifiers};
use verifier::Hash;
use verifier::license::OpenedEnvelope;

use super::case::{Case, Found};
use crate::keyed;
use crate::rights::code::{PresentationCode, Token};
use crate::wire::named::{Named, UseContext};

/// The word for a person whom a request is about.
pub const HOLDER: &str = "holder";
/// The word for a person who acts for another.
pub const AGENT: &str = "agent";

/// The matter of a request, beside the persons that it names.
#[derive(Debug, Default)]
pub enum About<'a> {
    /// Nothing that somebody holds.
    #[default]
    Nothing,
    /// A license that is to be made under this identifier.
    New(CertificateIdentifier),
    /// Licenses by their identifiers, at least one.
    Licenses(&'a [CertificateIdentifier]),
    /// A license by identifier or number.
    Named(&'a Named<'a>),
    /// A license by its signed bytes.
    Envelope(&'a [u8]),
    /// A grant.
    Grant(Key),
    /// A presentation code.
    Code(&'a Token),
    /// A thing that a route alone knows, by its key, and how to find whom it concerns.
    Own(Key, fn(&mut Case<'_>, &Key) -> Vec<Label>),
}

/// The terms of a grant, as its holder is told of them.
#[derive(Debug, Default)]
pub struct Terms<'a> {
    /// The step of its life.
    pub action: Option<&'static str>,
    /// The organisation that may use it.
    pub grantee: Option<&'a Uscc>,
    /// Purpose.
    pub purpose: Option<&'a str>,
    /// Field of use.
    pub scenario: Option<Scenario>,
    /// Last valid moment, RFC 3339.
    pub until: Option<String>,
    /// The verifiers that a presentation code is for.
    pub verifiers: Option<Verifiers>,
}

/// A person whom a request names.
#[derive(Debug)]
pub struct Person<'a> {
    /// The person.
    pub holder: &'a HolderRef,
    /// The word for them; `None` where an entry that does not concern them says nothing of them.
    pub named: Option<&'static str>,
    /// A denial concerns them, unless it concerns the holders of what the request is about.
    pub is_concerned: bool,
}

/// Whom and what a request is about, and what an entry's subject part says of it: the same for a permit and a denial. Carrying a
/// permit out adds to it.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// Its matter.
    pub about: About<'a>,
    /// The persons that it names. Their numbers are not written: a part is kept for whom it is sealed for, and may outlive the
    /// others.
    pub persons: Vec<Person<'a>>,
    /// Licenses, by identifier.
    pub identifiers: Vec<Cow<'a, str>>,
    /// Type, number and holder, where a license is named by them.
    pub number: Option<(LicenseTypeCode, &'a str, &'a HolderRef)>,
    /// The use context.
    pub context: Option<&'a UseContext<'a>>,
    /// A grant's id.
    pub grant: Option<Key>,
    /// Ids of the others, where several are used.
    pub more_grants: &'a [Key],
    /// Types that are asked for without a license.
    pub types_asked: &'a [LicenseTypeCode],
    /// Names of fields.
    pub fields: Vec<Cow<'a, str>>,
    /// Names of the fields that a row is looked up by.
    pub keys: Vec<Cow<'a, str>>,
    /// Those of them whose values leave masked.
    pub masked: Vec<Cow<'a, str>>,
    /// Digest of an annotated copy.
    pub copy: Option<Hash>,
    /// How much is disclosed.
    pub mode: Option<&'static str>,
    /// Code of a shared resource.
    pub resource: Option<&'a str>,
    /// Why, as the caller says.
    pub reason: &'a str,
    /// The link by which somebody acts for the holder.
    pub link: Option<&'static str>,
    /// The terms that a grant is given.
    pub terms: Option<Terms<'a>>,
    /// Assurance level of the assertion that it was done with.
    pub assurance: Option<String>,
    /// By what right the use was permitted.
    pub basis: Option<&'static str>,
    /// The user is an officer, whose name the holder is told.
    pub officer: bool,
    /// An auditor's purpose and user.
    pub audit: Option<(&'a str, &'a str)>,
}

impl<'a> Names<'a> {
    /// Adds a person whom a denial concerns.
    #[must_use]
    pub fn person(mut self, holder: &'a HolderRef, named: &'static str) -> Self {
        self.persons.push(Person { holder, named: Some(named), is_concerned: true });
        self
    }

    /// Adds a person whom a denial does not concern.
    #[must_use]
    pub fn beside(mut self, holder: &'a HolderRef, named: &'static str) -> Self {
        self.persons.push(Person { holder, named: Some(named), is_concerned: false });
        self
    }

    /// Adds a holder whom a denial concerns, and who acts for the holder, whom it does not.
    #[must_use]
    pub fn holder(self, holder: &'a HolderRef, agent: Option<&'a HolderRef>) -> Self {
        let names = self.person(holder, HOLDER);
        agent.into_iter().fold(names, |names, agent| names.beside(agent, AGENT))
    }

    /// Says that it is about a named license, which a portal may have vouched for a holder of.
    #[must_use]
    pub fn license(mut self, license: &'a Named<'a>, vouched: Option<&'a HolderRef>) -> Self {
        self.about = About::Named(license);
        match license {
            Named::Identifier { text, .. } => {
                self.identifiers.push(Cow::from(&**text));
                vouched.into_iter().fold(self, |names, holder| names.person(holder, HOLDER))
            }
            Named::Number { type_code, certificate_number, holder } => {
                self.number = Some((*type_code, certificate_number, holder));
                vouched
                    .into_iter()
                    .fold(self, |names, holder| names.beside(holder, HOLDER))
                    .person(holder, HOLDER)
            }
        }
    }

    /// The delay class that the use names.
    pub fn delay(&self) -> Option<&'a str> {
        self.context?.delay.as_deref()
    }

    /// Whom a denial concerns: the real holders of the license asked about if it is known, else the holders named, as far
    /// as the log knows them. So it is for every refusal of a request that can be read, whoever sent it: an attempt that
    /// fails at a role or a suspension stands in the holder's trace like any other. Filled up with holders that are nobody, as
    /// far as there may be real ones: whether a license or a holder exists is told by no work that is done or left out for
    /// them, from here to the journal.
    pub(super) fn concerned(&self, case: &mut Case<'_>, nobodies: &[Label]) -> Vec<Label> {
        let mut concerned = match self.holders(case) {
            Some(holders) => holders,
            None => {
                let named = self.persons.iter().filter(|person| person.is_concerned);
                named.filter_map(|person| case.holder(person.holder)).map(|holder| holder.label).collect()
            }
        };
        if let About::Named(named) = &self.about
            && let Some(nobody) = nobodies.first()
        {
            case.level(named, nobody);
        }
        let mut most = 0;
        for code in self.type_code().into_iter().chain(self.further_types()) {
            most += case.license_type(&code).map_or(0, |license_type| license_type.max_holders);
        }
        let most = most.max(self.holders_named());
        // The erased are concerned by nothing any more.
        concerned.retain(|label| case.is_living(label));
        let missing = most.saturating_sub(concerned.len());
        concerned.extend(nobodies.iter().take(missing));
        concerned
    }

    /// The holders of what it is about, if that is known.
    fn holders(&self, case: &mut Case<'_>) -> Option<Vec<Label>> {
        let by_identifier = |case: &mut Case<'_>, identifier: &CertificateIdentifier| {
            case.license(keyed::license_key(case.keyed(), identifier))
        };
        let found: Option<Found> = match &self.about {
            About::Nothing => None,
            About::New(identifier) => by_identifier(case, identifier),
            About::Licenses(identifiers) => {
                let found: Vec<Found> =
                    identifiers.iter().filter_map(|identifier| by_identifier(case, identifier)).collect();
                let holders = found.iter().flat_map(|found| &found.license.holders);
                let all = holders.fold(Vec::new(), |mut all: Vec<Label>, holder| {
                    if !all.contains(holder) {
                        all.push(*holder);
                    }
                    all
                });
                return (!found.is_empty()).then_some(all);
            }
            About::Named(named) => case.named(named),
            About::Envelope(envelope) => {
                let opened = OpenedEnvelope::open(envelope).ok();
                let content = opened.and_then(|opened| verifier::license::read_body(opened.body()).ok());
                content.and_then(|content| by_identifier(case, &content.identifier))
            }
            About::Grant(id) => return case.grant(id).map(|held| vec![held.grant.holder]),
            About::Code(token) => {
                let (_, code) = case.document::<PresentationCode>(token.key(case.keyed()));
                return code.map(|code| vec![code.holder.0]);
            }
            About::Own(key, holders) => return Some(holders(case, key)),
        };
        found.map(|found| found.license.holders)
    }

    /// The type of license that a use is of, as far as it can be known before it is decided. It may take a look-up.
    pub(crate) fn type_used(&self, case: &mut Case<'_>) -> Option<LicenseTypeCode> {
        match &self.about {
            About::Code(token) => {
                let (_, code) = case.document::<PresentationCode>(token.key(case.keyed()));
                code.and_then(|code| code.license)
                    .map(|license| license.type_code)
                    .or(self.types_asked.first().copied())
            }
            About::Envelope(envelope) => {
                let opened = OpenedEnvelope::open(envelope).ok()?;
                let content = verifier::license::read_body(opened.body()).ok()?;
                Some(content.identifier.type_code())
            }
            About::Nothing
            | About::New(_)
            | About::Licenses(_)
            | About::Named(_)
            | About::Grant(_)
            | About::Own(..) => self.type_code().or(self.types_asked.first().copied()),
        }
    }

    /// The type of a license that it names.
    fn type_code(&self) -> Option<LicenseTypeCode> {
        match &self.about {
            About::Licenses(identifiers) => identifiers.first().map(CertificateIdentifier::type_code),
            About::Named(named) => Some(named.type_code()),
            About::Nothing
            | About::New(_)
            | About::Envelope(_)
            | About::Grant(_)
            | About::Code(_)
            | About::Own(..) => None,
        }
    }

    /// The types of what it is about beside the first.
    pub(crate) fn further_types(&self) -> impl Iterator<Item = LicenseTypeCode> {
        let identifiers: &[CertificateIdentifier] = match &self.about {
            About::Licenses(identifiers) => identifiers,
            About::Nothing
            | About::New(_)
            | About::Named(_)
            | About::Envelope(_)
            | About::Grant(_)
            | About::Code(_)
            | About::Own(..) => &[],
        };
        let of_licenses = identifiers.iter().map(CertificateIdentifier::type_code);
        of_licenses.chain(self.types_asked.iter().copied()).skip(1)
    }

    /// The type of the license that it is about, as far as the request says. A presented license says it itself.
    pub(crate) fn license_type(&self) -> Option<LicenseTypeCode> {
        match &self.about {
            About::New(identifier) => Some(identifier.type_code()),
            About::Envelope(envelope) => {
                let opened = OpenedEnvelope::open(envelope).ok()?;
                Some(verifier::license::read_body(opened.body()).ok()?.identifier.type_code())
            }
            About::Nothing
            | About::Licenses(_)
            | About::Named(_)
            | About::Grant(_)
            | About::Code(_)
            | About::Own(..) => self.type_code().or(self.types_asked.first().copied()),
        }
    }

    /// How many holders it names, as far as the request says.
    fn holders_named(&self) -> usize {
        let persons = self.persons.iter().filter(|person| person.is_concerned).count();
        match &self.about {
            About::Nothing | About::New(_) => persons,
            About::Licenses(_) | About::Named(_) | About::Envelope(_) | About::Grant(_) | About::Code(_) => {
                persons.max(1)
            }
            About::Own(..) => 0,
        }
    }
}
