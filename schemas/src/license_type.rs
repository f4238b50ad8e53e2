//! License types (证照类型): who may hold such a license, which fields stand on it, whether it ends.
//!
//! A type is a JSON document; those in `types/` are built in. [`LicenseType::check`] enforces a definition before a
//! license is signed. Errors name keys of the definition, never a value.
//!
//! Pure functions over a definition; nothing to lose.

use std::cmp::Reverse;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::date::{Date, is_day};
use crate::holder::{HolderRef, HolderTypeCode};
use crate::identifier::{LicenseTypeCode, Uscc};
use crate::kinds::Scenario;
use crate::mask::Show;
use crate::text::{self, Comparison, TextError, fold, is_text};

/// Facts of the face that every license has, whatever its type. A grant names them by the bits from 63 down.
pub const BASE_FIELDS: [&str; 7] =
    ["certificateNumber", "holderName", "holderNumber", "issueDate", "validFrom", "validUntil", "issuerName"];
/// Most fields of a type: a grant names them by the bits of a 64-bit mask that [`BASE_FIELDS`] leave.
pub const MAX_FIELDS: usize = 64 - BASE_FIELDS.len();
/// Most holders of one license.
pub const MAX_HOLDERS: usize = 16;
/// Most characters of a field's value.
pub const MAX_VALUE_LENGTH: usize = 4096;
/// Most characters of a name, a label or a key.
pub const MAX_NAME_LENGTH: usize = 128;
/// Most values of a code field.
pub const MAX_CODE_VALUES: usize = 256;
/// Most purposes that one mask is lifted for.
pub const MAX_CLEAR_PURPOSES: usize = 64;
/// Most bytes of a definition.
pub const MAX_DEFINITION_BYTES: usize = 256 * 1024;
/// Characters of a date and of a citizen number or USCC: the least `maxLength` of such fields.
const DATE_LENGTH: usize = 10;
const NUMBER_LENGTH: usize = 18;

/// The definition of a license type. Read it with [`LicenseType::parse`] or serde; both check that it is well
/// formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, remote = "Self")]
pub struct LicenseType {
    /// The type code (证照类型代码).
    pub code: LicenseTypeCode,
    /// Chinese name.
    pub name: String,
    /// English name.
    pub name_en: String,
    /// Chinese name of the body that defines the type (证照定义机构).
    pub authority_name: String,
    /// The kind of holder that may hold such a license.
    pub holders: HolderKind,
    /// Holder type codes that may hold one; empty: all of that kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holder_types: Vec<HolderTypeCode>,
    /// Least number of holders, from 1.
    pub min_holders: usize,
    /// Greatest number of holders, at most [`MAX_HOLDERS`].
    pub max_holders: usize,
    /// Whether such a license ends.
    pub validity: Validity,
    /// The fields of the license face (照面), at most [`MAX_FIELDS`]; their order is fixed, because grants name
    /// fields by index.
    pub fields: Vec<Field>,
    /// The fields of use (用证场景) that grants may name; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scenarios: Vec<Scenario>,
    /// Fields that are masked (脱敏) for whoever is neither holder nor issuer; the others are shown in clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<Mask>,
}

/// How a field of the face, or a fact that every license has, is masked where a grant shows it. Example:
/// `{"field": "holderNumber", "show": "ends", "clearFor": ["贷款审核"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mask {
    /// Its key.
    pub field: String,
    /// The part that is shown.
    pub show: Show,
    /// Purposes (用途) for which it is shown in clear; a use without a purpose is for none of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clear_for: Vec<String>,
}

/// The kind of holder that may hold a license of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderKind {
    /// Natural persons only.
    Natural,
    /// Organisations only.
    Legal,
    /// Both.
    Both,
}

/// Whether licenses of a type have an end date (有效期截止).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validity {
    /// Each has one.
    Required,
    /// Some have one, others are without end (长期).
    Optional,
    /// None has one.
    None,
}

/// One field of a license face.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Field {
    /// Key in JSON and in the license body, camelCase ASCII.
    pub key: String,
    /// Chinese label.
    pub label: String,
    /// English label.
    pub label_en: String,
    /// The kind of values that it takes.
    pub kind: FieldKind,
    /// Whether each license has it.
    pub required: bool,
    /// How it is to be guarded.
    pub sensitivity: Sensitivity,
    /// Most characters of a value, 1 to [`MAX_VALUE_LENGTH`].
    pub max_length: usize,
    /// The fact of a holder that stands here once more: both must agree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
    /// Why the person or organisation whose number stands here is no holder of the license. A field of a number's kind
    /// has this or repeats a holder's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_holder: Option<String>,
    /// How an expected value is compared with it; without it as [`Field::comparison`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compare: Option<Comparison>,
}

/// A fact of a holder that a face repeats. Example: `{"fact": "name", "of": "mother"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repeats {
    /// Which fact.
    pub fact: HolderFact,
    /// Part that the holder plays: the fields with one part are about one holder, whom the number among them finds.
    /// Absent: the license's only holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

/// A fact of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HolderFact {
    /// The holder's name.
    Name,
    /// The holder's number, in any spelling of its one form.
    Number,
    /// The birth date that the holder's number says, if it says one.
    BirthDate,
    /// The names of all holders, each once, in any order. Signs may stand between them, and digits in brackets, as in
    /// `张三（50%）、李四（50%）`.
    AllNames,
}

/// A holder as [`LicenseType::check`] compares it with the face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedHolder<'a> {
    /// The name that the license shows.
    pub name: &'a str,
    /// The holder's type and number.
    pub holder: &'a HolderRef,
}

/// The kind of values that a field takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FieldKind {
    /// Printable text of one line.
    Text,
    /// `YYYY-MM-DD`.
    Date,
    /// `YYYY-MM-DD`, or as much of it as is known: `YYYY-MM`, `YYYY`.
    PartialDate,
    /// A decimal number: an optional minus, digits, optionally a point and digits.
    Number,
    /// One of a list.
    Code {
        /// The list.
        values: Vec<String>,
    },
    /// A citizen number (GB 11643), normalised.
    CitizenNumber,
    /// A USCC (GB 32100).
    Uscc,
    /// A number of any kind that identifies a person or an organisation, as printed.
    HolderNumber,
    /// A postal address: printable text of one line.
    Address,
}

/// How a field is to be guarded; a number from 1 to 4 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Sensitivity {
    /// 1: open to anyone.
    Open = 1,
    /// 2: for participants.
    Internal = 2,
    /// 3: personal data.
    Personal = 3,
    /// 4: sensitive personal data.
    Sensitive = 4,
}

impl TryFrom<u8> for Sensitivity {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, &'static str> {
        match number {
            1 => Ok(Self::Open),
            2 => Ok(Self::Internal),
            3 => Ok(Self::Personal),
            4 => Ok(Self::Sensitive),
            _ => Err("a sensitivity is 1 to 4"),
        }
    }
}

impl From<Sensitivity> for u8 {
    fn from(sensitivity: Sensitivity) -> Self {
        match sensitivity {
            Sensitivity::Open => 1,
            Sensitivity::Internal => 2,
            Sensitivity::Personal => 3,
            Sensitivity::Sensitive => 4,
        }
    }
}

/// Why a document is no license type.
#[derive(Debug, thiserror::Error)]
pub enum LicenseTypeError {
    /// Longer than [`MAX_DEFINITION_BYTES`].
    #[error("a license type has at most {MAX_DEFINITION_BYTES} bytes")]
    TooLong,
    /// Not JSON, a member missing, unknown or of the wrong form.
    #[error("the license type cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A name or a label that is empty, too long or not printable.
    #[error("a name or label of a license type has 1 to {MAX_NAME_LENGTH} printable characters")]
    Name,
    /// Bounds of the number of holders that do not fit together.
    #[error("a license type has 1 to {MAX_HOLDERS} holders, and not more at least than at most")]
    Holders,
    /// No field, or too many.
    #[error("a license type has 1 to {MAX_FIELDS} fields, not {found}")]
    FieldCount {
        /// Fields found.
        found: usize,
    },
    /// A key that is not camelCase ASCII.
    #[error("the key of field {index} is not camelCase ASCII")]
    Key {
        /// Index of the field.
        index: usize,
    },
    /// A key that stands twice.
    #[error("field {index} has the key of another field or of a fact that every license has")]
    DuplicateKey {
        /// Index of the second such field.
        index: usize,
    },
    /// A number that repeats no holder's and does not say why, or the reverse: both; or a repetition that does not fit
    /// the field's kind or the number of holders.
    #[error(
        "field {index} must repeat a holder's fact in a fitting way, or say why its number is no holder's"
    )]
    Repeats {
        /// Index of the field.
        index: usize,
    },
    /// A holder type code that stands twice or is of a kind that cannot hold such a license.
    #[error("the holder types do not fit the kind of holders")]
    HolderTypes,
    /// A `maxLength` that is out of bounds or too small for the field's kind.
    #[error("the maxLength of field {index} does not fit")]
    MaxLength {
        /// Index of the field.
        index: usize,
    },
    /// A mask of no field or of one that has another mask, or with purposes that are too many, no texts or not different.
    #[error(
        "mask {index} is not of a field of its own, or its purposes are not at most {MAX_CLEAR_PURPOSES} different texts"
    )]
    Mask {
        /// Index of the mask.
        index: usize,
    },
    /// A list of values that is empty, too long, or holds a value twice or one that is no text.
    #[error("the values of field {index} are not 1 to {MAX_CODE_VALUES} different texts")]
    Values {
        /// Index of the field.
        index: usize,
    },
}

/// Why a license does not fit its type. Names keys of the type's definition, never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Too few or too many holders.
    #[error("a license of this type has {min} to {max} holders, not {found}")]
    HolderCount {
        /// Holders found.
        found: usize,
        /// Least number.
        min: usize,
        /// Greatest number.
        max: usize,
    },
    /// A natural person where only organisations may be holders, or the reverse.
    #[error("holder {position} is of a kind that cannot hold a license of this type")]
    HolderKind {
        /// Place of the holder, from 1.
        position: usize,
    },
    /// A holder that stands twice.
    #[error("holder {position} stands twice")]
    DuplicateHolder {
        /// Place of the second, from 1.
        position: usize,
    },
    /// A field that the type does not have. Its key is the caller's text and is not repeated.
    #[error("field {position} is not in the type's definition")]
    UnknownField {
        /// Place of the field, from 1.
        position: usize,
    },
    /// A field that stands twice.
    #[error("field {key} stands twice")]
    DuplicateField {
        /// Key in the definition.
        key: String,
    },
    /// A required field that is not there.
    #[error("field {key} is missing")]
    MissingField {
        /// Key in the definition.
        key: String,
    },
    /// A value that is no text of people and places, or too long.
    #[error("field {key}: {error}")]
    Text {
        /// Key in the definition.
        key: String,
        /// The fault.
        error: TextError,
    },
    /// A value that the field's kind does not allow.
    #[error("the value of field {key} is not of its kind")]
    BadValue {
        /// Key in the definition.
        key: String,
    },
    /// A number in a field whose check character is wrong.
    #[error("the check character in field {key} is wrong")]
    Check {
        /// Key in the definition.
        key: String,
    },
    /// A value that says another thing of a holder than the holder's entry.
    #[error("field {key} does not agree with the holder that it is about")]
    HolderDiffers {
        /// Key in the definition.
        key: String,
    },
    /// No end date, though each license of the type has one.
    #[error("a license of this type has an end date")]
    EndMissing,
    /// An end date, though no license of the type has one.
    #[error("a license of this type has no end date")]
    EndNotAllowed,
    /// An end before the start.
    #[error("the license ends before it starts")]
    EndBeforeStart,
}

impl NamedHolder<'_> {
    /// Whether a number, as spelled on a face, is this holder's.
    fn has_number(&self, spelled: &str) -> bool {
        let code = self.holder.type_code().as_str();
        let read = if self.holder.is_as_registered() { HolderRef::as_registered } else { HolderRef::new };
        read(code, spelled).is_ok_and(|read| read == *self.holder)
    }
}

impl FieldError {
    /// Whether the form is right and only a check character is wrong.
    pub const fn is_check_error(&self) -> bool {
        matches!(self, Self::Check { .. })
    }
}

impl LicenseType {
    /// The types that are built in, in the order of their file names.
    pub fn builtin() -> Vec<Self> {
        BUILTIN
            .iter()
            .map(|json| Self::parse(json).expect("the built-in definitions are read by a test"))
            .collect()
    }

    /// Reads a definition.
    ///
    /// # Errors
    /// [`LicenseTypeError`] if it cannot be read or is not well formed.
    pub fn parse(json: &str) -> Result<Self, LicenseTypeError> {
        if json.len() > MAX_DEFINITION_BYTES {
            return Err(LicenseTypeError::TooLong);
        }
        let mut reader = serde_json::Deserializer::from_str(json);
        let definition = Self::deserialize(&mut reader)?;
        reader.end()?;
        definition.well_formed()?;
        Ok(definition)
    }

    /// Whether this definition may take the place of one that licenses and grants rest on: of the same code and the same kind
    /// of holders, admitting every number and kind of them that was admitted, with every field where it was, of the same kind and guarded as well, and new ones behind them. A list of
    /// values may have grown.
    pub fn may_follow(&self, before: &Self) -> bool {
        let kept = |(now, then): (&Field, &Field)| {
            let kind = match (&now.kind, &then.kind) {
                (FieldKind::Code { values }, FieldKind::Code { values: known }) => {
                    known.iter().all(|value| values.contains(value))
                }
                (now, then) => now == then,
            };
            now.key == then.key && kind && now.sensitivity >= then.sensitivity
        };
        let admits_as_many = self.min_holders <= before.min_holders && self.max_holders >= before.max_holders;
        // None named are all of the kind.
        let admits_the_same = self.holder_types.is_empty()
            || !before.holder_types.is_empty()
                && before.holder_types.iter().all(|code| self.holder_types.contains(code));
        self.code == before.code
            && self.holders == before.holders
            && admits_as_many
            && admits_the_same
            && self.fields.len() >= before.fields.len()
            && self.fields.iter().zip(&before.fields).all(kept)
    }

    /// The index of a field: its bit in a grant's mask.
    pub fn field_index(&self, key: &str) -> Option<u32> {
        let index = self.fields.iter().position(|field| field.key == key)?;
        u32::try_from(index).ok()
    }

    /// How a value that a caller expects of a field, or of a fact that every license has, is compared with it.
    pub fn comparison(&self, name: &str) -> Comparison {
        self.field(name).map_or_else(|| base_comparison(name), Field::comparison)
    }

    /// The definition of a field.
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// The part of a masked field that a use for a purpose is shown; `None` for one that is shown in clear.
    pub fn mask(&self, field: &str, purpose: Option<&str>) -> Option<Show> {
        let mask = self.masks.iter().find(|mask| mask.field == field)?;
        let is_clear = purpose.is_some_and(|purpose| mask.clear_for.iter().any(|clear| clear == purpose));
        (!is_clear).then_some(mask.show)
    }

    /// Whether a license of this type counts as a natural person's, so that a right is needed to learn of it: a
    /// type for both counts as natural.
    pub const fn is_natural_person(&self) -> bool {
        matches!(self.holders, HolderKind::Natural | HolderKind::Both)
    }

    /// Whether a holder with this kind of number may hold such a license.
    pub fn may_hold(&self, code: HolderTypeCode) -> bool {
        self.of_kind(code) && (self.holder_types.is_empty() || self.holder_types.contains(&code))
    }

    const fn of_kind(&self, code: HolderTypeCode) -> bool {
        match self.holders {
            HolderKind::Natural => code.is_natural(),
            HolderKind::Legal => !code.is_natural(),
            HolderKind::Both => true,
        }
    }

    /// Checks a license against the definition: holders, fields, dates.
    ///
    /// # Errors
    /// Every [`FieldError`] that applies, in that order; at least one.
    pub fn check(
        &self,
        holders: &[NamedHolder<'_>],
        fields: &[(String, String)],
        valid_until: Option<Date>,
        valid_from: Date,
    ) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        self.check_holders(holders, &mut errors);
        self.check_fields(holders, fields, &mut errors);
        self.check_repeats(holders, fields, &mut errors);
        match (self.validity, valid_until) {
            (Validity::Required, None) => errors.push(FieldError::EndMissing),
            (Validity::None, Some(_)) => errors.push(FieldError::EndNotAllowed),
            (_, Some(end)) if end < valid_from => errors.push(FieldError::EndBeforeStart),
            _ => {}
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_holders(&self, holders: &[NamedHolder<'_>], errors: &mut Vec<FieldError>) {
        let (min, max, found) = (self.min_holders, self.max_holders, holders.len());
        if !(min..=max).contains(&found) {
            errors.push(FieldError::HolderCount { found, min, max });
        }
        let mut seen = HashSet::new();
        for (NamedHolder { holder, .. }, position) in holders.iter().zip(1..) {
            if !self.may_hold(holder.type_code()) {
                errors.push(FieldError::HolderKind { position });
            }
            if !seen.insert(holder) {
                errors.push(FieldError::DuplicateHolder { position });
            }
        }
    }

    fn check_fields(
        &self,
        holders: &[NamedHolder<'_>],
        fields: &[(String, String)],
        errors: &mut Vec<FieldError>,
    ) {
        let mut seen = 0_u64;
        for ((key, value), position) in fields.iter().zip(1..) {
            let Some(index) = self.field_index(key) else {
                errors.push(FieldError::UnknownField { position });
                continue;
            };
            let bit = 1 << index;
            if seen & bit != 0 {
                errors.push(FieldError::DuplicateField { key: key.clone() });
                continue;
            }
            seen |= bit;
            if let Some(field) = self.field(key) {
                let error = field.check(value).err();
                // A holder's number that deviates as registered stands on the face as it is.
                let registered = |holder: &NamedHolder<'_>| {
                    holder.holder.is_as_registered() && holder.holder.number() == value
                };
                let deviates = error.as_ref().is_some_and(FieldError::is_check_error)
                    && field.repeats.is_some()
                    && holders.iter().any(registered);
                errors.extend(error.filter(|_| !deviates));
            }
        }
        for (field, index) in self.fields.iter().zip(0_u32..) {
            if field.required && seen & (1 << index) == 0 {
                errors.push(FieldError::MissingField { key: field.key.clone() });
            }
        }
    }

    /// Parts that holders play on the face, in the order of the fields.
    pub fn parts(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = Vec::new();
        for repeats in self.fields.iter().filter_map(|field| field.repeats.as_ref()) {
            if let Some(of) = repeats.of.as_deref().filter(|of| !parts.contains(of)) {
                parts.push(of);
            }
        }
        parts
    }

    /// The face says of a holder what the holder's entry says.
    fn check_repeats(
        &self,
        holders: &[NamedHolder<'_>],
        fields: &[(String, String)],
        errors: &mut Vec<FieldError>,
    ) {
        let mut taken = HashSet::new();
        for part in std::iter::once(None).chain(self.parts().into_iter().map(Some)) {
            let about: Vec<(HolderFact, &String, &str)> = self
                .fields
                .iter()
                .filter_map(|field| {
                    let repeats = field.repeats.as_ref().filter(|repeats| repeats.of.as_deref() == part)?;
                    let (_, value) = fields.iter().find(|(key, _)| *key == field.key)?;
                    Some((repeats.fact, &field.key, value.as_str()))
                })
                .collect();
            let differs = |key: &String| FieldError::HolderDiffers { key: key.clone() };
            let holder = match about.iter().find(|(fact, ..)| *fact == HolderFact::Number) {
                Some((_, key, number)) => {
                    // Two parts are two holders.
                    let found = holders.iter().find(|holder| {
                        holder.has_number(number) && (part.is_none() || !taken.contains(holder.holder))
                    });
                    let Some(found) = found else {
                        errors.push(differs(key));
                        continue;
                    };
                    taken.insert(found.holder);
                    Some(found)
                }
                // Without a number a part's holder is not known; the only holder always is.
                None if part.is_none() && holders.len() == 1 => holders.first(),
                None => None,
            };
            for (fact, key, value) in about {
                let agrees = match fact {
                    HolderFact::Number => true,
                    HolderFact::AllNames => are_all_names(value, holders),
                    HolderFact::Name => holder.is_none_or(|holder| {
                        fold(Comparison::Name, holder.name) == fold(Comparison::Name, value)
                    }),
                    HolderFact::BirthDate => holder
                        .and_then(|holder| holder.holder.birth_date())
                        .is_none_or(|born| born.starts_with(value)),
                };
                if !agrees {
                    errors.push(differs(key));
                }
            }
        }
    }

    fn well_formed(&self) -> Result<(), LicenseTypeError> {
        if ![&self.name, &self.name_en, &self.authority_name].into_iter().all(|name| is_name(name)) {
            return Err(LicenseTypeError::Name);
        }
        if self.min_holders < 1 || self.min_holders > self.max_holders || self.max_holders > MAX_HOLDERS {
            return Err(LicenseTypeError::Holders);
        }
        if !(1..=MAX_FIELDS).contains(&self.fields.len()) {
            return Err(LicenseTypeError::FieldCount { found: self.fields.len() });
        }
        let (mut codes, mut numbered) = (HashSet::new(), HashSet::new());
        if !self.holder_types.iter().all(|code| self.of_kind(*code) && codes.insert(code)) {
            return Err(LicenseTypeError::HolderTypes);
        }
        let mut keys = HashSet::new();
        for (index, field) in self.fields.iter().enumerate() {
            let finds = |repeats: &&Repeats| repeats.fact == HolderFact::Number;
            let twice = field.repeats.as_ref().filter(finds).is_some_and(|found| !numbered.insert(&found.of));
            if twice || !field.repeats_well(self.max_holders) {
                return Err(LicenseTypeError::Repeats { index });
            }
            if BASE_FIELDS.contains(&field.key.as_str()) || !keys.insert(&field.key) {
                return Err(LicenseTypeError::DuplicateKey { index });
            }
            field.well_formed(index)?;
        }
        let mut masked = HashSet::new();
        for (index, mask) in self.masks.iter().enumerate() {
            let is_field = BASE_FIELDS.contains(&mask.field.as_str()) || keys.contains(&mask.field);
            let purposes: HashSet<_> = mask.clear_for.iter().collect();
            let is_good = is_field
                && masked.insert(&mask.field)
                && purposes.len() == mask.clear_for.len()
                && purposes.len() <= MAX_CLEAR_PURPOSES
                && mask.clear_for.iter().all(|purpose| is_name(purpose));
            if !is_good {
                return Err(LicenseTypeError::Mask { index });
            }
        }
        Ok(())
    }
}

/// How a value that a caller expects of a fact that every license has is compared with it.
fn base_comparison(name: &str) -> Comparison {
    if name.ends_with("Name") { Comparison::Name } else { Comparison::Number }
}

impl FieldKind {
    /// Checks a value of this kind and of at most so many characters.
    ///
    /// # Errors
    /// Its fault, under `key`, which is the definition's.
    pub fn check(&self, key: &str, max_length: usize, value: &str) -> Result<(), FieldError> {
        let key = || key.to_owned();
        if value.chars().count() > max_length {
            let error = TextError::TooLong { max: max_length };
            return Err(FieldError::Text { key: key(), error });
        }
        let good = match self {
            Self::Text | Self::Address | Self::HolderNumber => {
                text::read(value, max_length).map_err(|error| FieldError::Text { key: key(), error })?;
                true
            }
            Self::Date => value.parse::<Date>().is_ok(),
            Self::PartialDate => is_partial_date(value),
            Self::Number => is_number(value),
            Self::Code { values } => values.iter().any(|known| known == value),
            Self::CitizenNumber => match HolderRef::new(HolderTypeCode::CitizenNumber.as_str(), value) {
                Err(error) if error.is_check_error() => return Err(FieldError::Check { key: key() }),
                // Another spelling of the number would be a second value for one person.
                parsed => parsed.is_ok_and(|holder| holder.number() == value),
            },
            Self::Uscc => match value.parse::<Uscc>() {
                Err(error) if error.is_check_error() => return Err(FieldError::Check { key: key() }),
                parsed => parsed.is_ok(),
            },
        };
        if good { Ok(()) } else { Err(FieldError::BadValue { key: key() }) }
    }
}

impl Field {
    /// How an expected value is compared: as the definition says, else by the field's kind. Most texts are names.
    pub fn comparison(&self) -> Comparison {
        self.compare.unwrap_or(match self.kind {
            FieldKind::Text => Comparison::Name,
            FieldKind::Address | FieldKind::Code { .. } => Comparison::Text,
            _ => Comparison::Number,
        })
    }

    fn check(&self, value: &str) -> Result<(), FieldError> {
        self.kind.check(&self.key, self.max_length, value)
    }

    /// Whether what it repeats fits its kind and the number of holders, and a number of somebody else says why.
    fn repeats_well(&self, max_holders: usize) -> bool {
        let is_number =
            matches!(self.kind, FieldKind::CitizenNumber | FieldKind::Uscc | FieldKind::HolderNumber);
        if let Some(reason) = &self.not_holder {
            return is_number && self.repeats.is_none() && is_name(reason);
        }
        let Some(Repeats { fact, of }) = &self.repeats else { return !is_number };
        let fits = match fact {
            HolderFact::Name => self.kind == FieldKind::Text,
            HolderFact::AllNames => self.kind == FieldKind::Text && of.is_none(),
            HolderFact::Number => is_number,
            HolderFact::BirthDate => matches!(self.kind, FieldKind::Date | FieldKind::PartialDate),
        };
        let found = match of {
            Some(part) => is_key(part),
            None => max_holders == 1 || *fact == HolderFact::AllNames,
        };
        fits && found
    }

    fn well_formed(&self, index: usize) -> Result<(), LicenseTypeError> {
        if !is_key(&self.key) {
            return Err(LicenseTypeError::Key { index });
        }
        if !is_name(&self.label) || !is_name(&self.label_en) {
            return Err(LicenseTypeError::Name);
        }
        let least = match &self.kind {
            FieldKind::Text | FieldKind::Address | FieldKind::Number | FieldKind::HolderNumber => 1,
            FieldKind::Date | FieldKind::PartialDate => DATE_LENGTH,
            FieldKind::CitizenNumber | FieldKind::Uscc => NUMBER_LENGTH,
            FieldKind::Code { values } => {
                let different: HashSet<_> = values.iter().collect();
                let bounded =
                    (1..=MAX_CODE_VALUES).contains(&values.len()) && different.len() == values.len();
                if !bounded || !values.iter().all(|value| is_text(value)) {
                    return Err(LicenseTypeError::Values { index });
                }
                values.iter().map(|value| value.chars().count()).max().unwrap_or(1)
            }
        };
        if (least..=MAX_VALUE_LENGTH).contains(&self.max_length) {
            Ok(())
        } else {
            Err(LicenseTypeError::MaxLength { index })
        }
    }
}

impl Serialize for LicenseType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for LicenseType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let definition = Self::deserialize(deserializer)?;
        definition.well_formed().map_err(serde::de::Error::custom)?;
        Ok(definition)
    }
}

fn is_name(name: &str) -> bool {
    is_text(name) && name.chars().count() <= MAX_NAME_LENGTH
}

pub(crate) fn is_key(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.len() <= MAX_NAME_LENGTH
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`, and a day that there is. Births lie before the calendar of licenses too.
fn is_partial_date(value: &str) -> bool {
    let mut parts = value.split('-');
    let mut part = |digits: usize| {
        let Some(text) = parts.next() else { return Some(None) };
        let good = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| text.parse::<u16>().ok())
    };
    let (Some(Some(year)), Some(month), Some(day)) = (part(4), part(2), part(2)) else { return false };
    let small = |part: Option<u16>| u8::try_from(part.unwrap_or(1)).unwrap_or(0);
    parts.next().is_none() && is_day(i32::from(year), small(month), small(day))
}

/// `-?[0-9]+(\.[0-9]+)?`
fn is_number(value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

const BUILTIN: [&str; 9] = [
    include_str!("../types/birth-certificate.json"),
    include_str!("../types/business-license.json"),
    include_str!("../types/food-production-license.json"),
    include_str!("../types/household-register.json"),
    include_str!("../types/identity-card.json"),
    include_str!("../types/marriage-certificate.json"),
    include_str!("../types/professional-qualification.json"),
    include_str!("../types/real-estate-certificate.json"),
    include_str!("../types/social-security-card.json"),
];

/// Whether a text is the names of all holders: see [`HolderFact::AllNames`].
fn are_all_names(text: &str, holders: &[NamedHolder<'_>]) -> bool {
    let text = fold(Comparison::Name, text);
    let mut names: Vec<String> = holders.iter().map(|holder| fold(Comparison::Name, holder.name)).collect();
    // A name may begin with another one.
    names.sort_unstable_by_key(|name| Reverse(name.len()));
    let mut rest = text.as_str();
    while let Some(next) = rest.chars().next() {
        if let Some(at) = names.iter().position(|name| rest.starts_with(name)) {
            rest = rest.get(names.remove(at).len()..).unwrap_or_default();
        } else if let Some((inside, behind)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
            && !inside.contains(char::is_alphabetic)
        {
            rest = behind;
        } else if !next.is_alphanumeric() && !matches!(next, '(' | text::MIDDLE_DOT) {
            // Brackets and middle dots are parts of names.
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        } else {
            return false;
        }
    }
    names.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const CITIZEN: &str = "11010519491231002X";
    const USCC: &str = "91350100M000100Y43";

    fn definition() -> Value {
        json!({
            "code": "11100000DE0000014G001", "name": "测试证", "nameEn": "Test license", "authorityName": "测试机构",
            "holders": "natural", "minHolders": 1, "maxHolders": 2, "validity": "optional",
            "fields": [
                field("text", json!("text"), true), field("date", json!("date"), false),
                field("number", json!("number"), false),
                field("code", json!({"code": {"values": ["甲", "乙"]}}), false),
                elsewhere("citizen", json!("citizen-number")), elsewhere("uscc", json!("uscc")),
                field("address", json!("address"), false),
            ],
        })
    }

    /// A number of somebody who is no holder.
    fn elsewhere(key: &str, kind: Value) -> Value {
        let mut field = field(key, kind, false);
        field["notHolder"] = json!("测试用，非持证主体");
        field
    }

    fn field(key: &str, kind: Value, required: bool) -> Value {
        json!({"key": key, "label": "字段", "labelEn": "Field", "kind": kind, "required": required,
            "sensitivity": 3, "maxLength": 20})
    }

    fn parse(definition: &Value) -> Result<LicenseType, LicenseTypeError> {
        LicenseType::parse(&definition.to_string())
    }

    fn person(number: &str) -> HolderRef {
        HolderRef::new("111", number).unwrap()
    }

    /// Holders as a check takes them, all of one name.
    fn named(holders: &[HolderRef]) -> Vec<NamedHolder<'_>> {
        holders.iter().map(|holder| NamedHolder { name: "测试甲", holder }).collect()
    }

    fn check(fields: &[(&str, &str)]) -> Result<(), Vec<FieldError>> {
        let fields: Vec<_> = fields.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        parse(&definition()).unwrap().check(&named(&[person(CITIZEN)]), &fields, None, Date::MIN)
    }

    #[test]
    fn builtin_types_are_the_nine_common_ones() {
        let types = LicenseType::builtin();
        let names: HashSet<_> = types.iter().map(|t| t.name.as_str()).collect();
        let wanted = [
            "出生医学证明",
            "户口簿",
            "居民身份证",
            "社会保障卡",
            "职业资格证",
            "结婚证",
            "营业执照",
            "食品生产许可证",
            "不动产权证",
        ];
        assert_eq!(names, HashSet::from(wanted));
        let codes: HashSet<_> = types.iter().map(|t| t.code).collect();
        assert_eq!(codes.len(), types.len());
        for license_type in &types {
            assert!((6..=15).contains(&license_type.fields.len()), "{}", license_type.name);
            let json = serde_json::to_string(license_type).unwrap();
            assert_eq!(&LicenseType::parse(&json).unwrap(), license_type);
        }
        let find = |name: &str| types.iter().find(|t| t.name == name).unwrap();
        assert_eq!((find("结婚证").min_holders, find("结婚证").max_holders), (2, 2));
        assert_eq!(find("不动产权证").code.as_str(), "11100000MB03271699001");
        assert_eq!(find("营业执照").code.authority().as_str(), "11100000MB0341032Y");
        assert!(!find("营业执照").is_natural_person());
        assert!(find("不动产权证").is_natural_person() && find("结婚证").is_natural_person());
    }

    #[test]
    fn expected_values_are_compared_by_kind_or_as_the_definition_says() {
        let mut license_type = parse(&definition()).unwrap();
        let of = |license_type: &LicenseType, names: &[&str]| -> Vec<Comparison> {
            names.iter().map(|name| license_type.comparison(name)).collect()
        };
        use Comparison::{Name, Number, Text};
        assert_eq!(of(&license_type, &["text", "address", "code", "uscc"]), [Name, Text, Text, Number]);
        assert_eq!(
            of(&license_type, &["holderName", "issuerName", "certificateNumber", "validFrom"]),
            [Name, Name, Number, Number]
        );
        license_type.fields[0].compare = Some(Number);
        assert_eq!(of(&license_type, &["text"]), [Number]);
        let numbers: Vec<String> = LicenseType::builtin()
            .iter()
            .flat_map(|license_type| &license_type.fields)
            .filter(|field| field.compare == Some(Number))
            .map(|field| field.key.clone())
            .collect();
        assert_eq!(numbers, ["householdNumber", "unitNumber", "cardNumber"]);
    }

    #[test]
    fn field_indexes_follow_the_definition() {
        let license_type = parse(&definition()).unwrap();
        assert_eq!(
            (license_type.field_index("text"), license_type.field_index("address")),
            (Some(0), Some(6))
        );
        assert_eq!(license_type.field_index("Text"), None);
        assert_eq!(license_type.field("date").unwrap().kind, FieldKind::Date);
    }

    #[test]
    fn refuses_definitions_that_are_not_well_formed() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut changed = definition();
            change(&mut changed);
            assert!(serde_json::from_value::<LicenseType>(changed.clone()).is_err());
            parse(&changed).unwrap_err()
        };
        use LicenseTypeError as E;
        assert!(matches!(refused(&|d| d["name"] = json!("")), E::Name));
        assert!(matches!(refused(&|d| d["nameEn"] = json!("a\u{202e}")), E::Name));
        assert!(matches!(refused(&|d| d["fields"][0]["label"] = json!("长".repeat(129))), E::Name));
        assert!(matches!(refused(&|d| d["minHolders"] = json!(0)), E::Holders));
        assert!(matches!(refused(&|d| d["minHolders"] = json!(3)), E::Holders));
        assert!(matches!(refused(&|d| d["maxHolders"] = json!(17)), E::Holders));
        assert!(matches!(refused(&|d| d["fields"] = json!([])), E::FieldCount { found: 0 }));
        let many: Vec<_> = (0..65).map(|i| field(&format!("f{i}"), json!("text"), false)).collect();
        assert!(matches!(refused(&|d| d["fields"] = json!(many)), E::FieldCount { found: 65 }));
        for key in ["", "Text", "a_b", "a b", "名", "1a"] {
            assert!(matches!(refused(&|d| d["fields"][1]["key"] = json!(key)), E::Key { index: 1 }), "{key}");
        }
        assert!(matches!(refused(&|d| d["fields"][1]["key"] = json!("text")), E::DuplicateKey { index: 1 }));
        for (index, length) in [(0, 0), (0, 4097), (1, 9), (4, 17), (5, 17), (3, 0)] {
            let error = refused(&|d| d["fields"][index]["maxLength"] = json!(length));
            assert!(matches!(error, E::MaxLength { index: found } if found == index), "{index} {length}");
        }
        for values in [json!([]), json!(["甲", "甲"]), json!([""]), json!(["a\n"])] {
            let error = refused(&|d| d["fields"][3]["kind"] = json!({"code": {"values": values}}));
            assert!(matches!(error, E::Values { index: 3 }));
        }
        assert!(matches!(refused(&|d| d["extra"] = json!(1)), E::Json(_)));
        assert!(matches!(refused(&|d| d["fields"][0]["extra"] = json!(1)), E::Json(_)));
        assert!(matches!(refused(&|d| d["fields"][0]["sensitivity"] = json!(5)), E::Json(_)));
        assert!(matches!(refused(&|d| d["code"] = json!("11100000DE0000014A001")), E::Json(_)));
        assert!(matches!(refused(&|d| d["holders"] = json!("everyone")), E::Json(_)));
        assert!(matches!(LicenseType::parse(&format!("{} x", definition())), Err(E::Json(_))));
        assert!(matches!(LicenseType::parse(&" ".repeat(MAX_DEFINITION_BYTES + 1)), Err(E::TooLong)));
    }

    fn builtin(name: &str) -> LicenseType {
        LicenseType::builtin().into_iter().find(|license_type| license_type.name == name).unwrap()
    }

    fn differs(keys: &[&str]) -> Result<(), Vec<FieldError>> {
        if keys.is_empty() {
            return Ok(());
        }
        Err(keys.iter().map(|key| FieldError::HolderDiffers { key: (*key).into() }).collect())
    }

    /// The face of a license with some of its fields changed.
    fn changed(
        license_type: &LicenseType,
        holders: &[(&str, &HolderRef)],
        changes: &[(&str, &str)],
    ) -> Result<(), Vec<FieldError>> {
        let today: Date = "2026-11-21".parse().unwrap();
        let of = holders.iter().map(|(name, holder)| ((*name).to_owned(), (*holder).clone())).collect();
        let mut license = crate::synthetic::Synthetic::new(7).license_of(license_type, of, today);
        for (key, value) in changes {
            license.fields.retain(|(other, _)| other != key);
            license.fields.push(((*key).into(), (*value).into()));
        }
        let holders: Vec<_> = holders.iter().map(|(name, holder)| NamedHolder { name, holder }).collect();
        license_type.check(&holders, &license.fields, license.valid_until, license.valid_from)
    }

    #[test]
    fn what_stands_twice_agrees() {
        let (one, two) = (person(CITIZEN), person("440524188001010014"));
        let qualification = builtin("职业资格证");
        let of_one = |changes: &[(&str, &str)]| changed(&qualification, &[("测试甲", &one)], changes);
        assert_eq!(of_one(&[]), Ok(()));
        // The number of somebody else, the name, the birth date.
        assert_eq!(of_one(&[("idNumber", two.number())]), differs(&["idNumber"]));
        assert_eq!(of_one(&[("name", "测试乙")]), differs(&["name"]));
        // Typed in another way it is the same name.
        assert_eq!(
            changed(&qualification, &[("阿依·测试(甲)", &one)], &[("name", "阿依•测试（甲）")]),
            Ok(())
        );
        assert_eq!(of_one(&[("birthDate", "1949-12-30")]), differs(&["birthDate"]));
        for known in ["1949", "1949-12", "1949-12-31"] {
            assert_eq!(of_one(&[("birthDate", known)]), Ok(()));
        }
        // A number may be spelled as printed.
        let permit = HolderRef::new("516", "H12345678").unwrap();
        let of_permit = |changes: &[(&str, &str)]| changed(&qualification, &[("测试甲", &permit)], changes);
        assert_eq!(of_permit(&[("idNumber", "H12345678(02)"), ("birthDate", "1949")]), Ok(()));
        assert_eq!(of_permit(&[("idNumber", "H12345679")]), differs(&["idNumber"]));

        let marriage = builtin("结婚证");
        let married =
            |changes: &[(&str, &str)]| changed(&marriage, &[("测试甲", &one), ("测试乙", &two)], changes);
        assert_eq!(married(&[]), Ok(()));
        let swapped = [
            ("maleNumber", two.number()),
            ("maleName", "测试乙"),
            ("maleBirthDate", "1880-01-01"),
            ("femaleNumber", one.number()),
            ("femaleName", "测试甲"),
            ("femaleBirthDate", "1949"),
        ];
        assert_eq!(married(&swapped), Ok(()));
        // One number under another name, and one person as both.
        assert_eq!(married(&[("maleName", "测试乙")]), differs(&["maleName"]));
        assert_eq!(married(&[("femaleNumber", one.number())]), differs(&["femaleNumber"]));
        assert_eq!(married(&[("femaleNumber", "E12345678")]), differs(&["femaleNumber"]));

        let estate = builtin("不动产权证");
        let owned =
            |obligee: &str| changed(&estate, &[("测试甲", &one), ("测试乙", &two)], &[("obligee", obligee)]);
        assert_eq!(owned("测试乙 测试甲"), Ok(()));
        assert_eq!(owned("测试甲（50%）、测试乙（50%）"), Ok(()));
        for other in [
            "测试甲",
            "测试甲甲、测试乙",
            "测试甲、测试甲、测试乙",
            "测试甲、测试乙、测试丙",
            "测试甲(测试乙)",
            "测试甲·测试乙",
            "测试甲（华东）、测试乙",
        ] {
            assert_eq!(owned(other), differs(&["obligee"]), "{other}");
        }
        let longer = [("测试", &one), ("测试乙", &two)];
        assert_eq!(changed(&estate, &longer, &[("obligee", "测试乙、测试")]), Ok(()));

        let business = builtin("营业执照");
        let deviating = HolderRef::as_registered("001", "91350100M000100Y4A").unwrap();
        assert_eq!(changed(&business, &[("测试合作社", &deviating)], &[]), Ok(()));
        let other = [("uscc", "91350100M000100Y4B")];
        let errors = changed(&business, &[("测试合作社", &deviating)], &other).unwrap_err();
        assert!(errors.iter().any(FieldError::is_check_error));
        assert!(changed(&business, &[("测试合作社", &deviating)], &[("uscc", USCC)]).is_err());
    }

    #[test]
    fn every_type_fits_every_kind_of_holder_that_it_admits() {
        let today: Date = "2026-11-21".parse().unwrap();
        for license_type in LicenseType::builtin() {
            let admitted = HolderTypeCode::ALL.iter().filter(|code| license_type.may_hold(**code));
            let mut count = 0;
            for code in admitted {
                count += 1;
                let mut synthetic = crate::synthetic::Synthetic::new(count);
                let mut holders: Vec<(String, HolderRef)> = Vec::new();
                while holders.len() < license_type.min_holders {
                    let holder = synthetic.holder(*code);
                    if holders.iter().all(|(_, other)| *other != holder) {
                        holders.push((format!("测试{}", holders.len()), holder));
                    }
                }
                let license = synthetic.license_of(&license_type, holders, today);
                let holders: Vec<_> =
                    license.holders.iter().map(|(name, holder)| NamedHolder { name, holder }).collect();
                let checked =
                    license_type.check(&holders, &license.fields, license.valid_until, license.valid_from);
                assert_eq!(checked, Ok(()), "{} {code}", license_type.name);
            }
            let wanted = match license_type.name.as_str() {
                "居民身份证" | "户口簿" | "营业执照" | "食品生产许可证" => 1,
                "不动产权证" => 18,
                _ => 16,
            };
            assert_eq!(count, wanted, "{}", license_type.name);
        }
    }

    #[test]
    fn a_definition_says_whose_numbers_stand_on_the_face() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut changed = definition();
            change(&mut changed);
            parse(&changed).unwrap_err()
        };
        use LicenseTypeError as E;
        let at =
            |error: E, place| assert!(matches!(error, E::Repeats { index } if index == place), "{error:?}");
        let number = json!({"fact": "number", "of": "owner"});
        // A number of nobody, of a holder and of nobody at once; what is no number.
        at(refused(&|d| drop(d["fields"][4].as_object_mut().unwrap().remove("notHolder"))), 4);
        at(refused(&|d| d["fields"][4]["repeats"] = number.clone()), 4);
        at(refused(&|d| d["fields"][0]["notHolder"] = json!("无")), 0);
        at(refused(&|d| d["fields"][0]["repeats"] = number.clone()), 0);
        at(refused(&|d| d["fields"][1]["repeats"] = json!({"fact": "name", "of": "owner"})), 1);
        // Which of several holders.
        at(refused(&|d| d["fields"][0]["repeats"] = json!({"fact": "name"})), 0);
        // One part has one number.
        let twice = |d: &mut Value| {
            for index in [4, 5] {
                drop(d["fields"][index].as_object_mut().unwrap().remove("notHolder"));
                d["fields"][index]["repeats"] = number.clone();
            }
        };
        at(refused(&twice), 5);
        for types in [json!(["111", "111"]), json!(["001"])] {
            assert!(matches!(refused(&|d| d["holderTypes"] = types.clone()), E::HolderTypes));
        }
        assert!(matches!(refused(&|d| d["holderTypes"] = json!(["112"])), E::Json(_)));
    }

    #[test]
    fn partial_dates_are_years_months_or_days() {
        for good in ["1949", "1949-10", "1949-10-01", "2024-02-29"] {
            assert!(is_partial_date(good), "{good}");
        }
        for bad in ["", "49", "1949-", "1949-13", "1949-1", "194910", "1949-02-30", "1949-10-1", "１９４９"]
        {
            assert!(!is_partial_date(bad), "{bad}");
        }
    }

    #[test]
    fn takes_good_fields() {
        let all = [
            ("text", "测试"),
            ("date", "2024-02-29"),
            ("number", "-12.50"),
            ("code", "乙"),
            ("citizen", CITIZEN),
            ("uscc", USCC),
            ("address", "测试路 1 号"),
        ];
        assert_eq!(check(&all), Ok(()));
        assert_eq!(check(&[("number", "007"), ("text", &"长".repeat(20))]), Ok(()));
    }

    #[test]
    fn refuses_bad_fields() {
        use FieldError as E;
        assert_eq!(check(&[]), Err(vec![E::MissingField { key: "text".into() }]));
        assert_eq!(check(&[("text", "a"), ("other", "b")]), Err(vec![E::UnknownField { position: 2 }]));
        assert_eq!(
            check(&[("text", "a"), ("text", "a")]),
            Err(vec![E::DuplicateField { key: "text".into() }])
        );
        let long = "长".repeat(21);
        let text = |key: &str, error| E::Text { key: key.into(), error };
        let unfit = |key, class, place| text(key, TextError::Character { class, place });
        for key in ["text", "date"] {
            let found = check(&[("text", "a"), (key, &long)][usize::from(key == "text")..]);
            assert_eq!(found, Err(vec![text(key, TextError::TooLong { max: 20 })]));
        }
        for (value, error) in [
            ("", text("address", TextError::Empty)),
            (" a", unfit("address", text::Class::EdgeBlank, 1)),
            ("a\nb", unfit("address", text::Class::Control, 2)),
            ("a\u{200b}b", unfit("address", text::Class::ZeroWidth, 2)),
        ] {
            assert_eq!(check(&[("text", "a"), ("address", value)]), Err(vec![error]));
        }
        let all = [("date", "1"), ("other", "b"), ("code", "丙"), ("number", "x")];
        let wrong = |key: &str| E::BadValue { key: key.into() };
        assert_eq!(
            check(&all),
            Err(vec![
                wrong("date"),
                E::UnknownField { position: 2 },
                wrong("code"),
                wrong("number"),
                E::MissingField { key: "text".into() }
            ])
        );
        let bad = [
            ("date", "2024-02-30"),
            ("date", "20240229"),
            ("number", "1."),
            ("number", ".5"),
            ("number", "1e3"),
            ("number", "+1"),
            ("number", "--1"),
            ("number", ""),
            ("number", "１"),
            ("code", "丙"),
            ("code", ""),
            ("citizen", "110105194912310"),
            ("citizen", "11010519491231002x"),
            ("citizen", " 11010519491231002X"),
            ("uscc", "91350100"),
            ("uscc", "91350100m000100Y43"),
        ];
        for (key, value) in bad {
            assert_eq!(check(&[("text", "a"), (key, value)]), Err(vec![wrong(key)]), "{value:?}");
        }
        for (key, value) in [("citizen", "110105194912310021"), ("uscc", "91350100M000100Y4A")] {
            let error = check(&[("text", "a"), (key, value)]).unwrap_err().remove(0);
            assert!(error.is_check_error() && !error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn refuses_wrong_holders_and_dates() {
        use FieldError as E;
        let fields = [("text".to_owned(), "a".to_owned())];
        let mut license_type = parse(&definition()).unwrap();
        let (one, two, company) =
            (person(CITIZEN), person("440524188001010014"), HolderRef::new("001", USCC).unwrap());
        let with = |license_type: &LicenseType, holders: &[HolderRef]| {
            license_type.check(&named(holders), &fields, None, Date::MIN)
        };
        assert_eq!(with(&license_type, &[]), Err(vec![E::HolderCount { found: 0, min: 1, max: 2 }]));
        let three = [one.clone(), two.clone(), person("110105194912310003")];
        assert_eq!(with(&license_type, &three), Err(vec![E::HolderCount { found: 3, min: 1, max: 2 }]));
        let twice = [one.clone(), one.clone()];
        assert_eq!(with(&license_type, &twice), Err(vec![E::DuplicateHolder { position: 2 }]));
        let mixed = [one.clone(), company.clone()];
        assert_eq!(with(&license_type, &mixed), Err(vec![E::HolderKind { position: 2 }]));
        license_type.holders = HolderKind::Legal;
        assert_eq!(with(&license_type, &mixed), Err(vec![E::HolderKind { position: 1 }]));
        license_type.holders = HolderKind::Both;
        assert_eq!(with(&license_type, &mixed), Ok(()));

        let from: Date = "2026-01-01".parse().unwrap();
        let until = |license_type: &LicenseType, end: Option<&str>| {
            license_type.check(&named(&mixed), &fields, end.map(|end| end.parse().unwrap()), from)
        };
        assert_eq!(until(&license_type, Some("2025-12-31")), Err(vec![E::EndBeforeStart]));
        assert_eq!(until(&license_type, Some("2026-01-01")), Ok(()));
        license_type.validity = Validity::Required;
        assert_eq!(until(&license_type, None), Err(vec![E::EndMissing]));
        license_type.validity = Validity::None;
        assert_eq!(until(&license_type, Some("2027-01-01")), Err(vec![E::EndNotAllowed]));
    }
}
