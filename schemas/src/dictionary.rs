//! Dictionaries of service items (事项), materials (材料) and data elements (数据元), and the mapping of an item's materials to licenses and
//! shared data.
//!
//! A row is a list of texts by field, as a file holds it. Each type reads one and says what is wrong, field by field, without giving
//! a value back. Pure functions; nothing to lose.

use serde::{Deserialize, Serialize};

use crate::codes::Rule;
use crate::identifier::{LicenseTypeCode, USCC_LENGTH, Uscc};
use crate::license_type::FieldKind;
use crate::resource::{Fault, Field, is_code, row_faults};

/// Most materials of an item, and most fields of a mapping.
pub const MAX_NAMED: usize = 64;
/// Most characters of a material's or an element's code.
pub const MAX_CODE_CHARS: usize = 36;
/// Lengths of an item's code (实施编码): the USCC of the department and 13 more; with two more for a variant (办理项).
pub const ITEM_CODE_LENGTHS: [usize; 2] = [31, 33];
const MAX_NAME_CHARS: usize = 100;
const ITEM_CODE_FORM: &str = "a USCC (18) and 13 or 15 of 0-9A-Z";
const CODE_FORM: &str = "[0-9A-Z]{1,36}";
const RESOURCE_FORM: &str = "[0-9]{6,18}/[0-9]{6}";
const TYPE_FORM: &str = "a license type's code, 21 characters";

/// Declares names as JSON has them.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[doc = $doc])+ #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in requests, answers and files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

named! {
    /// A list that is imported.
    List {
        /// Service items.
        Items = "items",
        /// Materials.
        Materials = "materials",
        /// Data elements.
        Elements = "elements",
        /// Mappings of items' materials.
        Mappings = "mappings",
        /// Intended uses of licenses by organisations.
        Uses = "uses",
    }
}

named! {
    /// How a material of an item is done without (免提交方式).
    Mode {
        /// 直接取消: nobody needs it any more.
        Drop = "drop",
        /// 数据共享: a shared resource says it.
        Share = "share",
        /// 在线核验: a license says it.
        Verify = "verify",
    }
}

named! {
    /// Where a material comes from (来源渠道).
    Origin {
        /// 申请人自备.
        Applicant = "applicant",
        /// 政府部门核发.
        Government = "government",
        /// 其他.
        Other = "other",
    }
}

named! {
    /// How far a kept material is to be trusted (国办函〔2016〕108号).
    Trust {
        /// Issued by the authority.
        Issued = "A",
        /// Checked against the original.
        Checked = "B",
        /// Uploaded by the user, the original still to be checked.
        Uploaded = "C",
        /// Made by the user, with a promise.
        Promised = "D",
    }
}

impl Trust {
    /// Whether it stands for the original.
    pub const fn is_verified(self) -> bool {
        matches!(self, Self::Issued | Self::Checked)
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// A service item (事项).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Item {
    /// Its code (实施编码).
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version, from 1: a greater one takes its place.
    pub version: u32,
    /// The department that does it (实施主体).
    pub department: Uscc,
    /// Codes of the materials that it takes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub materials: Vec<String>,
    /// The license type that is its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<LicenseTypeCode>,
    /// Nobody does it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

/// A material (材料).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Material {
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version, from 1.
    pub version: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// No item takes it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

/// A data element (数据元).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Element {
    /// Its code, which fields of resources name.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version, from 1.
    pub version: u32,
    /// No resource uses it any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

/// How a material of an item is done without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Mapping {
    /// Code of the item.
    pub item: String,
    /// Code of the material.
    pub material: String,
    /// The way.
    pub mode: Mode,
    /// Code of the resource; of mode share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The license type; of mode verify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// Fields of the one or the other that say what the material says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// It no longer holds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

/// How much of a license of one type an organisation is to use for an item: a line of its list of intended uses (用证清单).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IntendedUse {
    /// The organisation.
    pub organisation: Uscc,
    /// Code of the item, as uses name it.
    pub item: String,
    /// The license type.
    pub type_code: LicenseTypeCode,
    /// Codes of the item's materials that such a license stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub materials: Vec<String>,
    /// Names of the modes; a higher one allows the lower.
    pub modes: Vec<String>,
    /// Fields that may be shown or expected; those of a mode that shows the whole face need no naming.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// It no longer holds.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cancelled: bool,
}

/// Modes that a line of intended uses may name.
pub const USE_MODES: [&str; 6] = ["verify", "fields", "face", "envelope", "copy", "search"];

/// Whether a text is an item's code, by the rule that it breaks.
///
/// # Errors
/// The rule.
pub fn item_code(text: &str) -> Result<(), Rule> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    let department = text.get(..USCC_LENGTH).filter(|_| is_plain && ITEM_CODE_LENGTHS.contains(&text.len()));
    match department.ok_or(Rule::Pattern)?.parse::<Uscc>() {
        Ok(_) => Ok(()),
        Err(error) if error.is_check_error() => Err(Rule::CheckDigit),
        Err(_) => Err(Rule::Pattern),
    }
}

fn is_entry_code(text: &str) -> bool {
    (1..=MAX_CODE_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

impl List {
    /// The fields of its rows. The first ones name a row.
    pub fn fields(self) -> Vec<Field> {
        let text = FieldKind::Text;
        let code =
            |names: &[&str]| FieldKind::Code { values: names.iter().map(|name| (*name).into()).collect() };
        let status = ("status", "状态", code(&["active", "cancelled"]), false, 9);
        let named = |label| [("code", label, text.clone(), true, MAX_CODE_CHARS)];
        let rest = [
            ("name", "名称", text.clone(), true, MAX_NAME_CHARS),
            ("version", "版本", FieldKind::Number, true, 9),
        ];
        let listed = MAX_NAMED * (MAX_CODE_CHARS + 1);
        let own = match self {
            Self::Items => vec![
                ("department", "实施主体", FieldKind::Uscc, true, USCC_LENGTH),
                ("materials", "材料编码，以空格分隔", text.clone(), false, listed),
                ("result", "办理结果证照类型", text.clone(), false, 21),
            ],
            Self::Materials => {
                let origins: Vec<&str> = Origin::ALL.iter().map(|origin| origin.name()).collect();
                vec![("origin", "来源渠道", code(&origins), true, 16)]
            }
            Self::Elements => Vec::new(),
            Self::Mappings => {
                let modes: Vec<&str> = Mode::ALL.iter().map(|mode| mode.name()).collect();
                vec![
                    ("item", "事项编码", text.clone(), true, MAX_CODE_CHARS),
                    ("material", "材料编码", text.clone(), true, MAX_CODE_CHARS),
                    ("mode", "免提交方式", code(&modes), true, 8),
                    ("resource", "资源代码", text.clone(), false, 25),
                    ("typeCode", "证照类型代码", text.clone(), false, 21),
                    ("fields", "信息项，以空格分隔", text.clone(), false, listed),
                ]
            }
            Self::Uses => vec![
                ("organisation", "用证单位", FieldKind::Uscc, true, USCC_LENGTH),
                ("item", "事项编码", text.clone(), true, MAX_NAME_CHARS),
                ("typeCode", "证照类型代码", text.clone(), true, 21),
                ("materials", "材料编码，以空格分隔", text.clone(), false, listed),
                ("modes", "用证方式，以空格分隔", text.clone(), true, listed),
                ("fields", "信息项，以空格分隔", text.clone(), false, MAX_NAMED * (MAX_NAME_CHARS + 1)),
            ],
        };
        let all = match self {
            Self::Items => named("事项编码").into_iter().chain(rest).chain(own).collect::<Vec<_>>(),
            Self::Materials => named("材料编码").into_iter().chain(rest).chain(own).collect(),
            Self::Elements => named("数据元编码").into_iter().chain(rest).chain(own).collect(),
            Self::Mappings | Self::Uses => own,
        };
        let field = |(key, label, kind, required, max_length): (&str, &str, FieldKind, bool, usize)| Field {
            key: key.to_owned(),
            label: label.to_owned(),
            kind,
            required,
            level: 1,
            max_length,
            element: None,
        };
        all.into_iter().chain([status]).map(field).collect()
    }

    /// The fields that a row is named by.
    pub const fn key(self) -> &'static [&'static str] {
        match self {
            Self::Items | Self::Materials | Self::Elements => &["code"],
            Self::Mappings => &["item", "material"],
            Self::Uses => &["organisation", "item", "typeCode"],
        }
    }

    /// Everything that is wrong with a row by itself.
    pub fn row_faults(self, row: &[(String, String)]) -> Vec<Fault> {
        match self {
            Self::Items => Item::read(row).err(),
            Self::Materials => Material::read(row).err(),
            Self::Elements => Element::read(row).err(),
            Self::Mappings => Mapping::read(row).err(),
            Self::Uses => IntendedUse::read(row).err(),
        }
        .unwrap_or_default()
    }
}

/// A row under reading: its values by field, and what is wrong so far.
struct Reading<'r> {
    row: &'r [(String, String)],
    faults: Vec<Fault>,
}

impl<'r> Reading<'r> {
    fn new(list: List, row: &'r [(String, String)]) -> Self {
        Self { row, faults: row_faults(&list.fields(), row) }
    }

    fn value(&self, field: &str) -> Option<&'r str> {
        self.row.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    fn text(&self, field: &str) -> String {
        self.value(field).unwrap_or_default().to_owned()
    }

    fn fault(&mut self, field: &str, rule: Rule, form: impl Into<String>) {
        self.faults.push(Fault { pointer: format!("/{field}"), rule, form: form.into() });
    }

    fn item(&mut self, field: &str) -> String {
        let text = self.text(field);
        if let Some(rule) = self.value(field).and_then(|text| item_code(text).err()) {
            self.fault(field, rule, ITEM_CODE_FORM);
        }
        text
    }

    fn entry(&mut self, field: &str) -> String {
        let text = self.text(field);
        if self.value(field).is_some_and(|text| !is_entry_code(text)) {
            self.fault(field, Rule::Pattern, CODE_FORM);
        }
        text
    }

    fn one_of<T: Copy>(&self, field: &str, all: &[T], name: fn(T) -> &'static str) -> Option<T> {
        let value = self.value(field)?;
        all.iter().copied().find(|one| name(*one) == value)
    }

    fn version(&mut self) -> u32 {
        let version = self.value("version").map(str::parse::<u32>);
        match version {
            Some(Ok(version)) if version > 0 => version,
            None => 0,
            Some(_) => {
                self.fault("version", Rule::Range, "a whole number from 1");
                0
            }
        }
    }

    fn type_code(&mut self, field: &str) -> Option<LicenseTypeCode> {
        let read = self.value(field)?.parse::<LicenseTypeCode>();
        if let Err(error) = &read {
            let rule = if error.is_check_error() { Rule::CheckDigit } else { Rule::Pattern };
            self.fault(field, rule, TYPE_FORM);
        }
        read.ok()
    }

    /// The words of a field, each once.
    fn words(&mut self, field: &str) -> Vec<String> {
        let words: Vec<String> =
            self.value(field).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        if words.len() > MAX_NAMED {
            self.fault(field, Rule::Count, format!("at most {MAX_NAMED}"));
        } else if (1..words.len())
            .any(|place| words.get(..place).is_some_and(|before| before.contains(&words[place])))
        {
            self.fault(field, Rule::Distinct, "each once");
        }
        words
    }

    fn cancelled(&self) -> bool {
        self.value("status") == Some("cancelled")
    }

    fn done<T>(self, value: Option<T>) -> Result<T, Vec<Fault>> {
        // A value that is missing has its fault.
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(self.faults),
        }
    }
}

impl Item {
    /// Reads a row.
    ///
    /// # Errors
    /// Its faults.
    pub fn read(row: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::new(List::Items, row);
        let code = reading.item("code");
        let version = reading.version();
        let materials = reading.words("materials");
        if materials.iter().any(|material| !is_entry_code(material)) {
            reading.fault("materials", Rule::Pattern, format!("{CODE_FORM}, blanks between them"));
        }
        let result = reading.type_code("result");
        let department = reading.value("department").and_then(|text| text.parse().ok());
        let (name, cancelled) = (reading.text("name"), reading.cancelled());
        reading.done(department.map(|department| Self {
            code,
            name,
            version,
            department,
            materials,
            result,
            cancelled,
        }))
    }
}

impl Material {
    /// Reads a row.
    ///
    /// # Errors
    /// Its faults.
    pub fn read(row: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::new(List::Materials, row);
        let (code, version) = (reading.entry("code"), reading.version());
        let origin = reading.one_of("origin", Origin::ALL, Origin::name);
        let (name, cancelled) = (reading.text("name"), reading.cancelled());
        reading.done(origin.map(|origin| Self { code, name, version, origin, cancelled }))
    }
}

impl Element {
    /// Reads a row.
    ///
    /// # Errors
    /// Its faults.
    pub fn read(row: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::new(List::Elements, row);
        let (code, version) = (reading.entry("code"), reading.version());
        let (name, cancelled) = (reading.text("name"), reading.cancelled());
        reading.done(Some(Self { code, name, version, cancelled }))
    }
}

impl Mapping {
    /// Reads a row.
    ///
    /// # Errors
    /// Its faults.
    pub fn read(row: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::new(List::Mappings, row);
        let (item, material) = (reading.item("item"), reading.entry("material"));
        let mode = reading.one_of("mode", Mode::ALL, Mode::name);
        let (type_code, fields) = (reading.type_code("typeCode"), reading.words("fields"));
        let resource = reading.value("resource").map(str::to_owned);
        if resource.as_ref().is_some_and(|code| !is_code(code)) {
            reading.fault("resource", Rule::Pattern, RESOURCE_FORM);
        }
        if let Some(mode) = mode {
            for (field, wanted, needed) in [
                ("resource", mode == Mode::Share, mode == Mode::Share),
                ("typeCode", mode == Mode::Verify, mode == Mode::Verify),
                ("fields", mode != Mode::Drop, mode == Mode::Share),
            ] {
                match reading.value(field) {
                    None if needed => {
                        reading.fault(field, Rule::Required, format!("needed in mode {}", mode.name()));
                    }
                    Some(_) if !wanted => {
                        reading.fault(field, Rule::NotAllowed, format!("not in mode {}", mode.name()));
                    }
                    _ => {}
                }
            }
        }
        let cancelled = reading.cancelled();
        reading.done(mode.map(|mode| Self { item, material, mode, resource, type_code, fields, cancelled }))
    }
}

impl IntendedUse {
    /// Reads a row.
    ///
    /// # Errors
    /// Its faults.
    pub fn read(row: &[(String, String)]) -> Result<Self, Vec<Fault>> {
        let mut reading = Reading::new(List::Uses, row);
        let organisation = reading.value("organisation").and_then(|text| text.parse().ok());
        let (item, type_code) = (reading.text("item"), reading.type_code("typeCode"));
        let (materials, modes, fields) =
            (reading.words("materials"), reading.words("modes"), reading.words("fields"));
        if materials.iter().any(|material| !is_entry_code(material)) {
            reading.fault("materials", Rule::Pattern, format!("{CODE_FORM}, blanks between them"));
        }
        if modes.iter().any(|mode| !USE_MODES.contains(&mode.as_str())) {
            reading.fault("modes", Rule::OneOf, USE_MODES.join(" "));
        }
        if fields.is_empty() && modes.iter().any(|mode| mode == "fields") {
            reading.fault("fields", Rule::Required, "needed in mode fields");
        }
        let cancelled = reading.cancelled();
        reading.done(organisation.zip(type_code).map(|(organisation, type_code)| Self {
            organisation,
            item,
            type_code,
            materials,
            modes,
            fields,
            cancelled,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::Synthetic;

    fn row(text: &str) -> Vec<(String, String)> {
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn told(list: List, text: &str) -> Vec<String> {
        let faults = list.row_faults(&row(text)).into_iter();
        faults.map(|fault| format!("{} {}", fault.pointer, fault.rule.name())).collect()
    }

    #[test]
    fn a_code_of_an_item_is_a_department_and_its_own_number() {
        let department = Synthetic::new(1).uscc();
        let good = format!("{department}4400100000001");
        assert_eq!((item_code(&good), item_code(&format!("{good}01"))), (Ok(()), Ok(())));
        assert_eq!(item_code(&format!("{good}0")), Err(Rule::Pattern));
        assert_eq!(item_code(&good.to_lowercase()), Err(Rule::Pattern));
        let last = department.as_str().chars().last().expect("18");
        let wrong = if last == '0' { '1' } else { '0' };
        let front = &department.as_str()[..17];
        assert_eq!(item_code(&format!("{front}{wrong}4400100000001")), Err(Rule::CheckDigit));
        assert_eq!(item_code("事项编码"), Err(Rule::Pattern));
    }

    #[test]
    fn each_fault_of_a_row_is_named() {
        let department = Synthetic::new(1).uscc();
        let item = format!("{department}4400100000001");
        let good = format!("code={item};name=事项;version=1;department={department};materials=M1 M2");
        assert_eq!(told(List::Items, &good), [""; 0]);
        assert_eq!(
            told(List::Items, &good.replace("M2", "M1").replace("version=1", "version=0")),
            ["/version range", "/materials distinct"]
        );
        assert_eq!(
            told(List::Items, &format!("{};result=11100000DE0000022A002", good.replace("M2", "m2"))),
            ["/materials pattern", "/result check-digit"]
        );
        assert_eq!(
            told(List::Items, "code=1"),
            ["/name required", "/version required", "/department required", "/code pattern"]
        );
        assert_eq!(told(List::Materials, "code=M1;name=材料;version=1;origin=sky"), ["/origin pattern"]);
        assert_eq!(told(List::Elements, "code=m;name=元;version=1.5"), ["/code pattern", "/version range"]);
        let mapping = |rest: &str| told(List::Mappings, &format!("item={item};material=M1;{rest}"));
        assert_eq!(mapping("mode=drop"), [""; 0]);
        assert_eq!(mapping("mode=share;resource=1010010001/000001;fields=status"), [""; 0]);
        assert_eq!(mapping("mode=verify;typeCode=11100000DE0000022B002"), [""; 0]);
        assert_eq!(mapping("mode=drop;fields=a"), ["/fields not-allowed"]);
        assert_eq!(
            mapping("mode=share;typeCode=11100000DE0000022B002"),
            ["/resource required", "/typeCode not-allowed", "/fields required"]
        );
        assert_eq!(
            mapping("mode=verify;resource=x"),
            ["/resource pattern", "/resource not-allowed", "/typeCode required"]
        );
        assert_eq!(mapping("mode=paper"), ["/mode pattern"]);
        let line = |rest: &str| {
            told(
                List::Uses,
                &format!("organisation={department};item=开户;typeCode=11100000DE0000022B002;{rest}"),
            )
        };
        assert_eq!(line("modes=fields verify;fields=name sex;materials=M1"), [""; 0]);
        assert_eq!(line("modes=fields"), ["/fields required"]);
        assert_eq!(line("modes=paper;materials=m1"), ["/materials pattern", "/modes one-of"]);
        assert_eq!(line("fields=name name"), ["/modes required", "/fields distinct"]);
    }
}
