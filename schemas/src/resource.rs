//! Shared resources (政务信息资源): what a department publishes for others, with the national core metadata (发改高技〔2017〕1272号).
//!
//! A definition is a JSON document. [`Resource::faults`] says what is wrong with it, member by member, and never gives a value
//! back. Pure functions; nothing to lose.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codes::Rule;
use crate::holder::HolderTypeCode;
use crate::identifier::{LicenseTypeCode, Uscc};
use crate::interface::Interface;
use crate::license_type::{FieldError, FieldKind, MAX_CODE_VALUES, MAX_VALUE_LENGTH, is_key};
use crate::mask::Show;
use crate::text::{self, TextError};

/// Most fields of a resource.
pub const MAX_FIELDS: usize = 64;
/// Most fields of a declared key.
pub const MAX_KEY_FIELDS: usize = 4;
/// Most characters of a name.
pub const MAX_NAME_CHARS: usize = 100;
/// Most characters of a summary, a basis or a condition's words.
pub const MAX_WORDS_CHARS: usize = 500;
/// Most pre-agreed needs, related resources and conditions.
pub const MAX_LISTED: usize = 100;

/// Declares codes with their Chinese names, as JSON has them.
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal $chinese:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[doc = $doc])+ #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The Chinese name.
            pub const fn chinese(self) -> &'static str {
                match self { $(Self::$variant => $chinese),+ }
            }
        }
    };
}

coded! {
    /// The field that a resource is of (领域): the base data and priority fields of the plans.
    Domain {
        /// Persons.
        Population = "population" "人口",
        /// Legal persons.
        LegalPerson = "legal-person" "法人",
        /// Places and names of places.
        Geography = "geography" "自然资源和空间地理",
        /// Credit.
        Credit = "credit" "社会信用",
        /// Electronic licenses.
        License = "license" "电子证照",
        /// Real estate registration.
        RealEstate = "real-estate" "不动产登记",
        /// Social security.
        SocialSecurity = "social-security" "社会保障",
        /// Medical insurance.
        MedicalInsurance = "medical-insurance" "医疗保障",
        /// Household registration.
        Household = "household" "户籍",
        /// Market access.
        MarketAccess = "market-access" "市场主体准入准营",
        /// Education.
        Education = "education" "教育",
        /// Marriage.
        Marriage = "marriage" "婚姻",
        /// Births.
        Birth = "birth" "生育",
        /// Housing.
        Housing = "housing" "住房",
        /// Anything else.
        Other = "other" "其他",
    }
}

coded! {
    /// How often a resource is brought up to date (更新周期).
    UpdateCycle {
        /// At once.
        RealTime = "real-time" "实时",
        /// Every day.
        Daily = "daily" "每日",
        /// Every week.
        Weekly = "weekly" "每周",
        /// Every month.
        Monthly = "monthly" "每月",
        /// Every quarter.
        Quarterly = "quarterly" "每季度",
        /// Every half year.
        HalfYearly = "half-yearly" "每半年",
        /// Every year.
        Yearly = "yearly" "每年",
        /// Without a rhythm.
        Irregular = "irregular" "不定期",
    }
}

impl UpdateCycle {
    /// Longest time between two updates, ms; `None` where nothing is promised. A month has 31 days.
    pub const fn within_ms(self) -> Option<u64> {
        const DAY_MS: u64 = 24 * 3_600 * 1_000;
        match self {
            Self::RealTime => Some(3_600 * 1_000),
            Self::Daily => Some(DAY_MS),
            Self::Weekly => Some(7 * DAY_MS),
            Self::Monthly => Some(31 * DAY_MS),
            Self::Quarterly => Some(92 * DAY_MS),
            Self::HalfYearly => Some(184 * DAY_MS),
            Self::Yearly => Some(366 * DAY_MS),
            Self::Irregular => None,
        }
    }
}

coded! {
    /// How a resource is supplied (共享方式).
    Supply {
        /// The exchange keeps the rows and answers queries.
        Hosted = "hosted" "托管",
        /// The provider's interface answers, called through the exchange.
        Interface = "interface" "接口",
        /// Files.
        File = "file" "文件",
        /// Tables that are copied.
        Table = "table" "库表",
    }
}

coded! {
    /// Whether a resource is open to anyone (开放属性).
    Openness {
        /// Open.
        Open = "open" "无条件开放",
        /// Open on a condition.
        Conditional = "conditional" "有条件开放",
        /// Not open.
        Closed = "closed" "不予开放",
    }
}

coded! {
    /// Whom the data are about (数据分类).
    Category {
        /// Natural persons.
        Personal = "personal" "个人数据",
        /// Organisations.
        Enterprise = "enterprise" "企业数据",
        /// Neither.
        Public = "public" "公共数据",
    }
}

coded! {
    /// A condition of sharing (共享条件), from the list that providers choose from.
    Condition {
        /// Only for the service items that an approval names.
        NamedItem = "named-item" "限定事项",
        /// Only organisations whose duties need it.
        Duty = "duty" "履职需要",
        /// Only rows of the applicant's region.
        Region = "region" "限定区域",
        /// Only so many queries a day.
        Volume = "volume" "限定用量",
        /// Only fields without personal data, or masked.
        Masked = "masked" "脱敏使用",
    }
}

coded! {
    /// A ground on which an application is refused (不同意理由), beside its legal basis.
    Ground {
        /// The applicant's duties do not need it.
        NoDuty = "no-duty" "非履职所需",
        /// More is asked than the purpose needs.
        Excessive = "excessive" "超出必要范围",
        /// The purpose is not clear.
        UnclearPurpose = "unclear-purpose" "用途不明确",
        /// A law forbids it.
        Forbidden = "forbidden" "法律法规禁止",
        /// Another department is the source.
        OtherSource = "other-source" "应向数据源头单位申请",
        /// A condition of sharing is not met.
        ConditionUnmet = "condition-unmet" "不符合共享条件",
    }
}

coded! {
    /// A duty that a unit answers for (各环节责任).
    Duty {
        /// Collecting.
        Collection = "collection" "归集",
        /// Sharing.
        Sharing = "sharing" "共享",
        /// Opening.
        Opening = "opening" "开放",
        /// Application.
        Application = "application" "应用",
        /// Security.
        Security = "security" "安全",
        /// Storage.
        Storage = "storage" "存储",
        /// Archiving.
        Archiving = "archiving" "归档",
    }
}

/// A unit that answers for a duty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Responsible {
    /// The duty.
    pub duty: Duty,
    /// USCC of the unit.
    pub organisation: String,
}

/// A need that was agreed on beforehand: an application of this organisation for this item is granted by rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Agreed {
    /// USCC of the organisation.
    pub organisation: String,
    /// Code of the service item.
    pub item_code: String,
}

/// The national system that data flow back from (国家部门回流), for the catalogue of such data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ReturnedFrom {
    /// Name of the system.
    pub system: String,
    /// The document that allows it.
    pub authorisation: String,
}

/// The field whose number says whom a row is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Subject {
    /// Holder type code of the numbers. Example: `111`, citizen numbers.
    pub type_code: String,
    /// Key of the field.
    pub field: String,
}

/// The fields of a license type that rows are compared with (比对).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Compared {
    /// Code of the license type.
    pub type_code: String,
    /// Names of the license's facts by field of the resource; those of the key but the subject's are among them.
    pub fields: BTreeMap<String, String>,
}

/// A field of a resource (信息项).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Field {
    /// Key in rows, camelCase ASCII.
    pub key: String,
    /// Chinese label.
    pub label: String,
    /// Values that it takes.
    pub kind: FieldKind,
    /// Each row has it.
    #[serde(default)]
    pub required: bool,
    /// How it is guarded, 1 to 4: from 3 on values are masked unless an approval says otherwise.
    pub level: u8,
    /// Most characters of a value.
    pub max_length: usize,
    /// Code of the data element (数据元) that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<String>,
}

/// A resource as its provider describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    /// 分类码 `/` 顺序码. Example: `3010010001/000001`.
    pub code: String,
    /// Name.
    pub name: String,
    /// Summary.
    pub summary: String,
    /// Field of the plans.
    pub domain: Domain,
    /// Whom the data are about.
    pub category: Category,
    /// Level of the whole, 1 to 4: from 4 on an operator countersigns approvals.
    pub level: u8,
    /// Sharing class (共享类型): 1 unconditional, 2 conditional, 3 not shared.
    pub sharing_class: u8,
    /// Conditions of class 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Legal basis of class 2 and 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// Whether it is open to anyone.
    pub openness: Openness,
    /// How often it is brought up to date.
    pub update_cycle: UpdateCycle,
    /// How it is supplied.
    pub supply: Supply,
    /// The provider's interface, of what is supplied by one. The provider alone is shown it, and operators and auditors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
    /// Whether a central copy may be kept (按需汇聚); hosted resources are one.
    #[serde(default)]
    pub central_copy: bool,
    /// Units that answer for the seven duties; all have to be there to publish.
    #[serde(default)]
    pub duties: Vec<Responsible>,
    /// Fields.
    pub fields: Vec<Field>,
    /// Fields that a row is found by.
    pub key: Vec<String>,
    /// Whom a row is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// The field that holds the region code of a row (GB/T 2260).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Needs agreed on beforehand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agreed: Vec<Agreed>,
    /// Codes of related resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<String>,
    /// The national system that it comes back from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_from: Option<ReturnedFrom>,
    /// License types that its rows are compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<Compared>,
}

/// A fault of a definition or a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer of the member.
    pub pointer: String,
    /// The rule that it breaks.
    pub rule: Rule,
    /// The right form.
    pub form: String,
}

fn fault(pointer: impl Into<String>, rule: Rule, form: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), rule, form: form.into() }
}

/// Whether a text is a resource code: 类 (1 digit), 项 (2), 目 (3), 细目 (at most 12), a slash and 6 digits in order.
pub fn is_code(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('/').is_some_and(|(class, order)| {
        (6..=18).contains(&class.len()) && digits(class) && order.len() == 6 && digits(order)
    })
}

/// Whether a text is a region code or the front of one: 2, 4, 6, 9 or 12 digits.
pub fn is_region(text: &str) -> bool {
    matches!(text.len(), 2 | 4 | 6 | 9 | 12) && text.bytes().all(|byte| byte.is_ascii_digit())
}

const CODE_FORM: &str = "[0-9]{6,18}/[0-9]{6}";
const USCC_FORM: &str = "18 of 0-9A-Z without I, O, S, V and Z (GB 32100)";

impl Resource {
    /// A sample of each domain but `other`, for demonstrations and tests. The first two are of class 2 and 1.
    pub fn samples() -> Vec<Self> {
        serde_json::from_str(include_str!("../resources.json")).expect("the samples are read by a test")
    }

    /// The field with a key.
    pub fn field(&self, key: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.key == key)
    }

    /// Whether the field with a key is masked unless an approval names it in clear.
    pub fn masks(&self, key: &str) -> bool {
        self.field(key).is_some_and(Field::is_masked)
    }

    /// Whether its rows are open data: marked open, of class 1 and level 1, hosted, and about no natural person.
    pub fn is_open(&self) -> bool {
        let natural = |subject: &Subject| {
            subject.type_code.parse::<HolderTypeCode>().map_or(true, HolderTypeCode::is_natural)
        };
        self.openness == Openness::Open
            && self.supply == Supply::Hosted
            && self.category != Category::Personal
            && (self.sharing_class, self.level) == (1, 1)
            && !self.subject.as_ref().is_some_and(natural)
    }

    /// The fields that open data have: those of level 1 that hold no number of a person.
    pub fn open_fields(&self) -> impl Iterator<Item = &Field> {
        let names_nobody =
            |field: &&Field| !matches!(field.kind, FieldKind::CitizenNumber | FieldKind::HolderNumber);
        self.fields.iter().filter(|field| field.level == 1).filter(names_nobody)
    }

    /// Everything that is wrong with the definition, as far as a draft has to be right.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !is_code(&self.code) {
            faults.push(fault("/code", Rule::Pattern, CODE_FORM));
        }
        let mut words = |pointer: &str, words: &str, most: usize| {
            let wrong = match text::read(words, most) {
                Ok(_) => None,
                Err(TextError::Character { .. }) => Some(Rule::Text),
                Err(TextError::Empty | TextError::TooLong { .. }) => Some(Rule::Length),
            };
            faults
                .extend(wrong.map(|rule| fault(pointer, rule, format!("1 to {most} printable characters"))));
        };
        words("/name", &self.name, MAX_NAME_CHARS);
        words("/summary", &self.summary, MAX_WORDS_CHARS);
        if let Some(basis) = &self.basis {
            words("/basis", basis, MAX_WORDS_CHARS);
        }
        if let Some(from) = &self.returned_from {
            words("/returnedFrom/system", &from.system, MAX_NAME_CHARS);
            words("/returnedFrom/authorisation", &from.authorisation, MAX_WORDS_CHARS);
        }
        for (agreed, place) in self.agreed.iter().zip(0..) {
            words(&format!("/agreed/{place}/itemCode"), &agreed.item_code, MAX_NAME_CHARS);
        }
        for (field, place) in self.fields.iter().zip(0..) {
            words(&format!("/fields/{place}/label"), &field.label, MAX_NAME_CHARS);
            if let Some(element) = &field.element {
                words(&format!("/fields/{place}/element"), element, MAX_NAME_CHARS);
            }
        }
        self.sharing_faults(&mut faults);
        self.unit_faults(&mut faults);
        self.field_faults(&mut faults);
        self.compared_faults(&mut faults);
        faults
    }

    fn compared_faults(&self, faults: &mut Vec<Fault>) {
        if self.compared.len() > MAX_LISTED {
            faults.push(fault("/compared", Rule::Count, format!("at most {MAX_LISTED}")));
        }
        let subject = self.subject.as_ref().map(|subject| &subject.field);
        let mut seen = BTreeSet::new();
        for (compared, place) in self.compared.iter().zip(0..) {
            if compared.type_code.parse::<LicenseTypeCode>().is_err() {
                let form = "the code of a license type";
                faults.push(fault(format!("/compared/{place}/typeCode"), Rule::Pattern, form));
            } else if !seen.insert(&compared.type_code) {
                let at = format!("/compared/{place}/typeCode");
                faults.push(fault(at, Rule::Distinct, "each license type once"));
            }
            let known = |field: &String| self.field(field).is_some();
            let right = !compared.fields.is_empty()
                && compared.fields.iter().all(|(field, fact)| known(field) && is_key(fact));
            if !right {
                let form = "facts of the license, camelCase, by field of the resource";
                faults.push(fault(format!("/compared/{place}/fields"), Rule::Unknown, form));
            }
            let found_by = |field: &&String| Some(*field) != subject && !compared.fields.contains_key(*field);
            if self.key.iter().any(|field| found_by(&field)) {
                let form = "each field of the key but the subject's";
                faults.push(fault(format!("/compared/{place}/fields"), Rule::Required, form));
            }
        }
    }

    fn sharing_faults(&self, faults: &mut Vec<Fault>) {
        for (pointer, number, most) in [("/level", self.level, 4), ("/sharingClass", self.sharing_class, 3)] {
            if !(1..=most).contains(&number) {
                faults.push(fault(pointer, Rule::Range, format!("1 to {most}")));
            }
        }
        let conditional = self.sharing_class == 2;
        if conditional == self.conditions.is_empty() {
            let rule = if conditional { Rule::Required } else { Rule::NotAllowed };
            faults.push(fault("/conditions", rule, "conditions of class 2, and of no other"));
        }
        if self.sharing_class != 1 && self.basis.is_none() {
            faults.push(fault("/basis", Rule::Required, "the legal basis of class 2 or 3"));
        }
        if self.sharing_class == 3 && !self.agreed.is_empty() {
            faults.push(fault("/agreed", Rule::NotAllowed, "nothing is agreed on of class 3"));
        }
        if self.openness == Openness::Open && self.category == Category::Personal {
            faults.push(fault("/openness", Rule::Combination, "personal data are not open"));
        }
        if self.supply == Supply::Hosted && !self.central_copy {
            faults.push(fault(
                "/centralCopy",
                Rule::Combination,
                "true, because hosted rows are a central copy",
            ));
        }
        match (self.supply, &self.interface) {
            (Supply::Interface, None) => {
                faults.push(fault("/interface", Rule::Required, "the interface that supplies it"));
            }
            (Supply::Interface, Some(interface)) => interface.faults(faults),
            (Supply::Hosted | Supply::File | Supply::Table, Some(_)) => {
                faults.push(fault("/interface", Rule::NotAllowed, "of what an interface supplies alone"));
            }
            (Supply::Hosted | Supply::File | Supply::Table, None) => {}
        }
        for (pointer, length) in [
            ("/conditions", self.conditions.len()),
            ("/agreed", self.agreed.len()),
            ("/related", self.related.len()),
        ] {
            if length > MAX_LISTED {
                faults.push(fault(pointer, Rule::Count, format!("at most {MAX_LISTED}")));
            }
        }
        for (code, place) in self.related.iter().zip(0..) {
            if !is_code(code) {
                faults.push(fault(format!("/related/{place}"), Rule::Pattern, CODE_FORM));
            }
        }
    }

    fn unit_faults(&self, faults: &mut Vec<Fault>) {
        let mut seen = BTreeSet::new();
        for (unit, place) in self.duties.iter().zip(0..) {
            if !seen.insert(unit.duty) {
                faults.push(fault(format!("/duties/{place}/duty"), Rule::Distinct, "each duty once"));
            }
            if unit.organisation.parse::<Uscc>().is_err() {
                faults.push(fault(format!("/duties/{place}/organisation"), Rule::Pattern, USCC_FORM));
            }
        }
        for (agreed, place) in self.agreed.iter().zip(0..) {
            if agreed.organisation.parse::<Uscc>().is_err() {
                faults.push(fault(format!("/agreed/{place}/organisation"), Rule::Pattern, USCC_FORM));
            }
        }
    }

    fn field_faults(&self, faults: &mut Vec<Fault>) {
        if !(1..=MAX_FIELDS).contains(&self.fields.len()) {
            faults.push(fault("/fields", Rule::Count, format!("1 to {MAX_FIELDS}")));
        }
        let mut seen = BTreeSet::new();
        for (field, place) in self.fields.iter().zip(0..) {
            let at = |member: &str| format!("/fields/{place}/{member}");
            if !is_key(&field.key) {
                faults.push(fault(at("key"), Rule::Pattern, "[a-z][A-Za-z0-9]*"));
            } else if !seen.insert(field.key.as_str()) {
                faults.push(fault(at("key"), Rule::Distinct, "each key once"));
            }
            if !(1..=4).contains(&field.level) {
                faults.push(fault(at("level"), Rule::Range, "1 to 4"));
            }
            if !(1..=MAX_VALUE_LENGTH).contains(&field.max_length) {
                faults.push(fault(at("maxLength"), Rule::Range, format!("1 to {MAX_VALUE_LENGTH}")));
            }
            if let FieldKind::Code { values } = &field.kind {
                let distinct: BTreeSet<_> = values.iter().collect();
                let good = (1..=MAX_CODE_VALUES).contains(&values.len())
                    && distinct.len() == values.len()
                    && values.iter().all(|value| text::is_text(value));
                if !good {
                    let form = format!("1 to {MAX_CODE_VALUES} different texts");
                    faults.push(fault(at("kind"), Rule::Count, form));
                }
            }
        }
        if !(1..=MAX_KEY_FIELDS).contains(&self.key.len()) {
            faults.push(fault("/key", Rule::Count, format!("1 to {MAX_KEY_FIELDS}")));
        }
        for (key, place) in self.key.iter().zip(0..) {
            match self.field(key) {
                None => faults.push(fault(format!("/key/{place}"), Rule::Unknown, "the key of a field")),
                Some(field) if !field.required => {
                    faults.push(fault(
                        format!("/key/{place}"),
                        Rule::Combination,
                        "a field that each row has",
                    ));
                }
                Some(_) => {}
            }
        }
        if let Some(subject) = &self.subject {
            if subject.type_code.parse::<HolderTypeCode>().is_err() {
                let form = "a holder type code, such as 111 or 001";
                faults.push(fault("/subject/typeCode", Rule::OneOf, form));
            }
            // Whom a query is about is known before the row is read.
            if !self.key.contains(&subject.field) {
                faults.push(fault("/subject/field", Rule::Unknown, "a field of the key"));
            }
        } else if self.category == Category::Personal {
            faults.push(fault("/subject", Rule::Required, "the field that says whom a row is about"));
        }
        if let Some(region) = &self.region
            && !self.field(region).is_some_and(|field| field.required)
        {
            faults.push(fault("/region", Rule::Unknown, "a field that each row has"));
        }
    }

    /// The duties that no unit answers for.
    pub fn missing_duties(&self) -> impl Iterator<Item = Duty> {
        let named = |duty: &Duty| self.duties.iter().any(|unit| unit.duty == *duty);
        Duty::ALL.iter().copied().filter(move |duty| !named(duty))
    }

    /// Whether this definition may take the place of one that approvals rest on: fields where they were, of the same kind and
    /// guarded as well, new ones behind them; the same key, subject and region, and a level that is no lower.
    pub fn may_follow(&self, before: &Self) -> bool {
        let kept = |(now, then): (&Field, &Field)| {
            let kind = match (&now.kind, &then.kind) {
                (FieldKind::Code { values }, FieldKind::Code { values: known }) => {
                    known.iter().all(|value| values.contains(value))
                }
                (now, then) => now == then,
            };
            now.key == then.key && kind && now.level >= then.level && now.max_length >= then.max_length
        };
        self.code == before.code
            && self.level >= before.level
            && (&self.key, &self.subject, &self.region, self.supply)
                == (&before.key, &before.subject, &before.region, before.supply)
            && self.fields.len() >= before.fields.len()
            && self.fields.iter().zip(&before.fields).all(kept)
            // Rows that are there lack a new field.
            && self.fields.iter().skip(before.fields.len()).all(|field| !field.required)
    }

    /// Everything that is wrong with a row, by field.
    pub fn row_faults(&self, row: &[(String, String)]) -> Vec<Fault> {
        let mut faults = row_faults(&self.fields, row);
        let regions = row.iter().filter(|(key, _)| self.region.as_ref() == Some(key));
        for (key, _) in regions.filter(|(_, value)| !is_region(value)) {
            faults.push(fault(format!("/{key}"), Rule::Pattern, "a region code of 2, 4, 6, 9 or 12 digits"));
        }
        faults
    }
}

/// Everything that is wrong with a row of these fields.
pub fn row_faults(fields: &[Field], row: &[(String, String)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, (key, value)) in row.iter().enumerate() {
        let Some(field) = fields.iter().find(|field| field.key == *key) else {
            // The caller's own word is not given back.
            faults.push(fault(format!("/{place}"), Rule::UnknownMember, "a field of the rows"));
            continue;
        };
        let at = || format!("/{}", field.key);
        if row.iter().take(place).any(|(before, _)| before == key) {
            faults.push(fault(at(), Rule::DuplicateMember, "each field once"));
        }
        let wrong = field.kind.check(&field.key, field.max_length, value).err().map(|error| match error {
            FieldError::Text { error: TextError::Character { .. }, .. } => Rule::Text,
            FieldError::Text { .. } => Rule::Length,
            FieldError::Check { .. } => Rule::CheckDigit,
            _ => Rule::Pattern,
        });
        faults.extend(wrong.map(|rule| fault(at(), rule, field.form())));
    }
    for field in fields.iter().filter(|field| field.required) {
        if !row.iter().any(|(key, _)| *key == field.key) {
            faults.push(fault(format!("/{}", field.key), Rule::Required, field.form()));
        }
    }
    faults
}

impl Field {
    /// Whether its values are masked unless an approval names it in clear.
    pub const fn is_masked(&self) -> bool {
        self.level >= 3
    }

    /// The values that it takes, in words.
    fn form(&self) -> String {
        let most = self.max_length;
        match &self.kind {
            FieldKind::Text | FieldKind::Address | FieldKind::HolderNumber => {
                format!("1 to {most} printable characters")
            }
            FieldKind::Date => "YYYY-MM-DD".to_owned(),
            FieldKind::PartialDate => "YYYY, YYYY-MM or YYYY-MM-DD".to_owned(),
            FieldKind::Number => "-?[0-9]+(\\.[0-9]+)?".to_owned(),
            FieldKind::Code { .. } => "one of the field's codes".to_owned(),
            FieldKind::CitizenNumber => "[0-9]{17}[0-9X] (GB 11643)".to_owned(),
            FieldKind::Uscc => USCC_FORM.to_owned(),
        }
    }

    /// The value as a consumer sees it whose approval does not say that it is shown in clear (脱敏): whole up to level 2; of level 3 the
    /// ends, at most four characters each; of level 4 nothing, not even its length.
    pub fn masked(&self, value: &str) -> String {
        match self.level {
            ..3 => value.to_owned(),
            3 => Show::Ends.of(value),
            4.. => Show::Nothing.of(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> Resource {
        Resource::samples().remove(0)
    }

    #[test]
    fn the_sample_resources_are_good_and_of_every_domain() {
        let samples = Resource::samples();
        let domains: BTreeSet<_> = samples.iter().map(|sample| sample.domain).collect();
        assert_eq!(domains.len(), Domain::ALL.len() - 1);
        for sample in samples {
            assert_eq!(sample.faults(), [], "{}", sample.code);
            assert_eq!(sample.missing_duties().count(), 0, "{}", sample.code);
            assert!(sample.may_follow(&sample));
        }
    }

    fn wrong(change: impl Fn(&mut Resource)) -> Vec<(String, Rule)> {
        let mut changed = resource();
        change(&mut changed);
        changed.faults().into_iter().map(|fault| (fault.pointer, fault.rule)).collect()
    }

    #[test]
    fn a_definition_is_refused_member_by_member() {
        let at = |pointer: &str, rule| vec![(pointer.to_owned(), rule)];
        assert_eq!(wrong(|new| new.code = "301/1".into()), at("/code", Rule::Pattern));
        assert_eq!(wrong(|new| new.name.clear()), at("/name", Rule::Length));
        assert_eq!(wrong(|new| new.level = 5), at("/level", Rule::Range));
        assert_eq!(wrong(|new| new.conditions.clear()), at("/conditions", Rule::Required));
        assert_eq!(wrong(|new| new.basis = None), at("/basis", Rule::Required));
        assert_eq!(wrong(|new| new.central_copy = false), at("/centralCopy", Rule::Combination));
        assert_eq!(wrong(|new| new.openness = Openness::Open), at("/openness", Rule::Combination));
        assert_eq!(wrong(|new| new.fields[1].key = "a b".into()), at("/fields/1/key", Rule::Pattern));
        assert_eq!(wrong(|new| new.fields[1].level = 0), at("/fields/1/level", Rule::Range));
        assert_eq!(wrong(|new| new.subject = None), at("/subject", Rule::Required));
        assert_eq!(wrong(|new| new.region = Some("no".into())), at("/region", Rule::Unknown));
        assert_eq!(
            wrong(|new| new.duties[0].organisation.push('0')),
            at("/duties/0/organisation", Rule::Pattern)
        );
        assert_eq!(
            wrong(|new| new.duties[1].duty = new.duties[0].duty),
            at("/duties/1/duty", Rule::Distinct)
        );
        assert_eq!(wrong(|new| new.supply = Supply::Interface), at("/interface", Rule::Required));
        let interface = |url: &str, deadline_ms| Some(Interface { url: url.to_owned(), deadline_ms });
        let good = interface("https://data.example/rows", 1_000);
        assert_eq!(wrong(|new| new.interface = good.clone()), at("/interface", Rule::NotAllowed));
        let supplied = |interface: &Option<Interface>| {
            wrong(|new| (new.supply, new.interface) = (Supply::Interface, interface.clone()))
        };
        assert_eq!(supplied(&good), []);
        assert_eq!(supplied(&interface("http://data.example/", 1_000)), at("/interface/url", Rule::Pattern));
        for deadline_ms in [0, 99, 10_001] {
            let late = interface("https://data.example/rows", deadline_ms);
            assert_eq!(supplied(&late), at("/interface/deadlineMs", Rule::Range));
        }
        let compared = |type_code: &str, fields: &[(&str, &str)]| Compared {
            type_code: type_code.into(),
            fields: fields.iter().map(|(field, fact)| ((*field).into(), (*fact).into())).collect(),
        };
        let id = "11100000DE0000022B002";
        assert_eq!(wrong(|new| new.compared = vec![compared(id, &[("name", "holderName")])]), []);
        assert_eq!(
            wrong(|new| new.compared = vec![compared("x", &[("name", "holderName")])]),
            at("/compared/0/typeCode", Rule::Pattern)
        );
        assert_eq!(
            wrong(|new| new.compared = vec![compared(id, &[("none", "holderName")])]),
            at("/compared/0/fields", Rule::Unknown)
        );
        assert_eq!(
            wrong(|new| {
                let fields = [("name", "holderName")];
                new.compared = vec![compared(id, &fields), compared(id, &fields)];
            }),
            at("/compared/1/typeCode", Rule::Distinct)
        );
        assert_eq!(
            wrong(|new| {
                new.key.push("regionCode".into());
                new.compared = vec![compared(id, &[("name", "holderName")])];
            }),
            at("/compared/0/fields", Rule::Required)
        );
        let faults = wrong(|new| new.key = vec!["none".into()]);
        assert_eq!(
            faults,
            [("/key/0".to_owned(), Rule::Unknown), ("/subject/field".to_owned(), Rule::Unknown)]
        );
    }

    #[test]
    fn only_what_is_open_without_a_condition_and_about_nobody_is_open_data() {
        let open = |change: fn(&mut Resource)| {
            let mut changed = Resource::samples().remove(1);
            change(&mut changed);
            changed.is_open()
        };
        assert!(open(|_| {}) && !resource().is_open());
        assert!(!open(|new| new.openness = Openness::Conditional));
        assert!(!open(|new| new.sharing_class = 2));
        assert!(!open(|new| new.level = 2));
        assert!(!open(|new| new.category = Category::Personal));
        assert!(!open(|new| new.supply = Supply::Interface));
        let natural = Subject { type_code: "111".into(), field: "idNumber".into() };
        assert!(!Resource { subject: Some(natural), ..Resource::samples().remove(1) }.is_open());
        let mut shown = Resource::samples().remove(1);
        let all = shown.open_fields().count();
        shown.fields[0].level = 2;
        shown.fields[1].kind = FieldKind::HolderNumber;
        assert_eq!(shown.open_fields().count(), all - 2);
    }

    #[test]
    fn a_row_is_refused_field_by_field() {
        let resource = resource();
        let row = |pairs: &[(&str, &str)]| {
            let row: Vec<_> =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let faults = resource.row_faults(&row).into_iter();
            faults.map(|fault| (fault.pointer, fault.rule)).collect::<Vec<_>>()
        };
        let good =
            [("idNumber", "44010619680523000X"), ("name", "张三"), ("regionCode", "440106"), ("status", "1")];
        assert_eq!(row(&good), []);
        assert_eq!(row(&good[1..]), [("/idNumber".to_owned(), Rule::Required)]);
        let with = |key: &'static str, value: &'static str| {
            let mut pairs = good.to_vec();
            pairs.retain(|(name, _)| *name != key);
            pairs.insert(0, (key, value));
            row(&pairs)
        };
        assert_eq!(with("idNumber", "440106196805230001"), [("/idNumber".to_owned(), Rule::CheckDigit)]);
        assert_eq!(with("regionCode", "44010"), [("/regionCode".to_owned(), Rule::Pattern)]);
        assert_eq!(with("status", "9"), [("/status".to_owned(), Rule::Pattern)]);
        assert_eq!(with("name", "张\n三"), [("/name".to_owned(), Rule::Text)]);
        assert_eq!(with("secret", "x"), [("/0".to_owned(), Rule::UnknownMember)]);
        let twice = [&good[..], &good[1..2]].concat();
        assert_eq!(row(&twice), [("/name".to_owned(), Rule::DuplicateMember)]);
    }

    #[test]
    fn a_change_keeps_what_approvals_rest_on() {
        let before = resource();
        let follows = |change: fn(&mut Resource)| {
            let mut changed = before.clone();
            change(&mut changed);
            changed.may_follow(&before)
        };
        assert!(follows(|new| new.name.push('新')));
        assert!(follows(|new| new.fields[1].level = 4));
        assert!(follows(|new| {
            let mut field = new.fields[1].clone();
            (field.key, field.required) = ("added".into(), false);
            new.fields.push(field);
        }));
        assert!(!follows(|new| new.fields[0].level = 1));
        assert!(!follows(|new| new.level = 2));
        assert!(!follows(|new| new.fields.swap(0, 1)));
        assert!(!follows(|new| new.fields.truncate(1)));
        assert!(!follows(|new| new.key = vec!["name".into()]));
        assert!(!follows(|new| new.supply = Supply::Interface));
        assert!(!follows(|new| {
            let mut field = new.fields[1].clone();
            field.key = "added".into();
            new.fields.push(field);
        }));
    }

    #[test]
    fn a_mask_shows_no_more_than_its_level_says() {
        let mut field = resource().fields.remove(0);
        field.level = 2;
        assert_eq!(field.masked("44010619680523000X"), "44010619680523000X");
        field.level = 3;
        assert_eq!(field.masked("44010619680523000X"), "4401**********000X");
        field.level = 4;
        assert_eq!(field.masked("x"), field.masked("a much longer text"));
    }
}
