//! Licenses of nobody: a deterministic generator for samples, tests and load.
//!
//! The same seed gives the same sequence on every machine. Numbers have right check characters and true regions,
//! but belong to no one: citizen numbers have the sequence 000, which is not given out in practice, organisation codes
//! begin with `XX`, and names begin with 测试.
//!
//! Samples, tests and benches alone call it. Pure functions; nothing to lose.

use crate::date::Date;
use crate::holder::{HolderRef, HolderTypeCode, citizen_check};
use crate::identifier::{LicenseTypeCode, Serial, USCC_ALPHABET, Uscc, organisation_check, uscc_check};
use crate::license_type::{Field, FieldKind, HolderFact, HolderKind, LicenseType, Validity};
use serde_json::{Map, Value, json};

/// Regions at county level (GB/T 2260) and the names that addresses use.
const REGIONS: [(&str, &str); 56] = [
    ("110101", "北京市东城区"),
    ("110102", "北京市西城区"),
    ("110105", "北京市朝阳区"),
    ("110106", "北京市丰台区"),
    ("110108", "北京市海淀区"),
    ("120101", "天津市和平区"),
    ("120102", "天津市河东区"),
    ("130102", "石家庄市长安区"),
    ("140105", "太原市小店区"),
    ("150102", "呼和浩特市新城区"),
    ("210102", "沈阳市和平区"),
    ("220102", "长春市南关区"),
    ("230102", "哈尔滨市道里区"),
    ("310101", "上海市黄浦区"),
    ("310104", "上海市徐汇区"),
    ("310115", "上海市浦东新区"),
    ("320102", "南京市玄武区"),
    ("320505", "苏州市虎丘区"),
    ("330102", "杭州市上城区"),
    ("330106", "杭州市西湖区"),
    ("330203", "宁波市海曙区"),
    ("340102", "合肥市瑶海区"),
    ("340111", "合肥市包河区"),
    ("350102", "福州市鼓楼区"),
    ("350203", "厦门市思明区"),
    ("360102", "南昌市东湖区"),
    ("370102", "济南市历下区"),
    ("370202", "青岛市市南区"),
    ("410102", "郑州市中原区"),
    ("420102", "武汉市江岸区"),
    ("420106", "武汉市武昌区"),
    ("430102", "长沙市芙蓉区"),
    ("430104", "长沙市岳麓区"),
    ("440103", "广州市荔湾区"),
    ("440104", "广州市越秀区"),
    ("440106", "广州市天河区"),
    ("440304", "深圳市福田区"),
    ("440305", "深圳市南山区"),
    ("450102", "南宁市兴宁区"),
    ("460105", "海口市秀英区"),
    ("500101", "重庆市万州区"),
    ("500103", "重庆市渝中区"),
    ("510104", "成都市锦江区"),
    ("510107", "成都市武侯区"),
    ("520102", "贵阳市南明区"),
    ("530102", "昆明市五华区"),
    ("540102", "拉萨市城关区"),
    ("610102", "西安市新城区"),
    ("610113", "西安市雁塔区"),
    ("620102", "兰州市城关区"),
    ("630102", "西宁市城东区"),
    ("640104", "银川市兴庆区"),
    ("650102", "乌鲁木齐市天山区"),
    ("350104", "福州市仓山区"),
    ("370103", "济南市市中区"),
    ("440303", "深圳市罗湖区"),
];

const SYLLABLES: [&str; 24] = [
    "甲", "乙", "丙", "丁", "戊", "己", "庚", "辛", "壬", "癸", "子", "丑", "寅", "卯", "辰", "巳", "午",
    "未", "申", "酉", "戌", "亥", "天", "地",
];
const TRADES: [&str; 8] = ["食品", "商贸", "科技", "建筑", "物流", "文化", "农业", "机械"];
const SERIAL_ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Characters of a generated serial: longer than any citizen number or USCC, so it never equals one.
const SERIAL_LENGTH: usize = 20;
/// Birth dates lie from 1940-01-01 on, within this many days (through 2005).
const FIRST_BIRTH_DAY: i32 = -10_957;
const BIRTH_DAYS: u64 = 24_106;
/// A license starts at most this many days before today, and ends at least one and at most as many days after it.
const PAST_DAYS: u64 = 3 * 365;
const FUTURE_DAYS: u64 = 10 * 365;

/// The generator: splitmix64 over a seed.
#[derive(Clone, Debug)]
pub struct Synthetic {
    state: u64,
}

/// The data that issues one license.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticLicense {
    /// 证照编号.
    pub certificate_number: String,
    /// Name and number of each holder.
    pub holders: Vec<(String, HolderRef)>,
    /// Date of issue: the start.
    pub issue_date: Date,
    /// First valid day, today or before.
    pub valid_from: Date,
    /// Last valid day, after today; `None` for a license without end.
    pub valid_until: Option<Date>,
    /// Key and value of the fields, in the order of the definition.
    pub fields: Vec<(String, String)>,
}

impl SyntheticLicense {
    /// The license as a request to issue it names it (`license` of `POST /v1/licenses`).
    pub fn request(&self, type_code: &LicenseTypeCode, serial: &str) -> Value {
        let fields: Map<String, Value> =
            self.fields.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let holders = self.holders.iter().map(|(name, holder)| {
            json!({"name": name, "typeCode": holder.type_code().as_str(), "number": holder.number()})
        });
        let mut license = json!({
            "typeCode": type_code.as_str(), "serial": serial, "certificateNumber": self.certificate_number,
            "holders": holders.collect::<Vec<_>>(), "issueDate": self.issue_date, "validFrom": self.valid_from,
            "fields": fields,
        });
        if let Some(until) = self.valid_until {
            license["validUntil"] = json!(until);
        }
        license
    }
}

impl Synthetic {
    /// A generator; equal seeds give equal sequences.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A citizen number (GB 11643) with a true region, a possible birth date, a right check character and the
    /// sequence 000, which is not given out in practice: no real person's number can come up. About 1.3 million
    /// different numbers, so that a large population has several licenses per holder.
    pub fn citizen_number(&mut self) -> String {
        let (region, _) = self.pick(&REGIONS);
        self.number_of_region(region)
    }

    /// A USCC (GB 32100) of an enterprise (91) in a true region, both check characters right, whose organisation
    /// code begins with `XX`.
    pub fn uscc(&mut self) -> Uscc {
        let (region, _) = self.pick(&REGIONS);
        let mut organisation = *b"XX000000";
        for byte in organisation.iter_mut().skip(2) {
            *byte = self.pick(USCC_ALPHABET);
        }
        enterprise(region, organisation)
    }

    /// The USCC with a number: as [`Self::uscc`], and two numbers below 31⁶ give two codes.
    pub fn numbered_uscc(number: u64) -> Uscc {
        let mut organisation = *b"XX000000";
        let mut rest = number;
        for byte in organisation.iter_mut().skip(2) {
            *byte = USCC_ALPHABET[(rest % USCC_ALPHABET.len() as u64) as usize];
            rest /= USCC_ALPHABET.len() as u64;
        }
        let (region, _) = REGIONS[(number % REGIONS.len() as u64) as usize];
        enterprise(region, organisation)
    }

    /// A name that is visibly nobody's: 测试 and two syllables.
    pub fn person_name(&mut self) -> String {
        format!("测试{}{}", self.pick(&SYLLABLES), self.pick(&SYLLABLES))
    }

    /// The name of a company that does not exist.
    pub fn organisation_name(&mut self) -> String {
        let (first, second, trade) = (self.pick(&SYLLABLES), self.pick(&SYLLABLES), self.pick(&TRADES));
        format!("测试{first}{second}{trade}有限公司")
    }

    /// A serial of 20 characters: more than 10²⁹ of them, so that they do not meet.
    pub fn serial(&mut self) -> Serial {
        self.text(SERIAL_LENGTH).parse().expect("20 of 0-9A-Z")
    }

    /// A holder of a kind, whose number is nobody's.
    pub fn holder(&mut self, code: HolderTypeCode) -> HolderRef {
        use HolderTypeCode as Code;
        let digits = format!("{:08}", self.below(100_000_000));
        let number = match code {
            Code::Uscc => self.uscc().to_string(),
            Code::OtherOrganisation => format!("CS{digits}"),
            Code::CitizenNumber => self.citizen_number(),
            Code::HongKongMacaoResidence => self.number_of_region("810000"),
            Code::TaiwanResidence => self.number_of_region("830000"),
            Code::HongKongMacaoPermit => format!("H{digits}"),
            Code::TaiwanPermit => digits,
            Code::DiplomaticPassport
            | Code::ServicePassport
            | Code::PublicAffairsPassport
            | Code::OrdinaryPassport => format!("E{digits}"),
            Code::MilitaryOfficer
            | Code::ArmedPoliceOfficer
            | Code::Soldier
            | Code::ArmedPoliceSoldier
            | Code::MilitaryCivilian
            | Code::ArmedPoliceCivilian
            | Code::OtherPerson => format!("测字第{digits}号"),
        };
        HolderRef::new(code.as_str(), &number).expect("a generated number is valid")
    }

    /// Everything needed to issue a license of a type that is valid on `today`; always passes
    /// [`LicenseType::check`].
    pub fn license(&mut self, license_type: &LicenseType, today: Date) -> SyntheticLicense {
        let holders = self.holders(license_type);
        self.license_of(license_type, holders, today)
    }

    /// The same for these holders, which the type must admit. Fields that repeat a holder agree with the holders.
    pub fn license_of(
        &mut self,
        license_type: &LicenseType,
        holders: Vec<(String, HolderRef)>,
        today: Date,
    ) -> SyntheticLicense {
        let valid_from = shift(today, -self.days(PAST_DAYS));
        let valid_until = match license_type.validity {
            Validity::None => None,
            Validity::Optional if self.below(2) == 0 => None,
            Validity::Required | Validity::Optional => Some(shift(today, self.days(FUTURE_DAYS) + 1)),
        };
        let parts = license_type.parts();
        let mut fields = Vec::with_capacity(license_type.fields.len());
        for field in &license_type.fields {
            let about = field.repeats.as_ref().map(|repeats| {
                let index = repeats.of.as_ref().and_then(|of| parts.iter().position(|part| *part == of));
                (repeats.fact, holders.get(index.unwrap_or(0)))
            });
            // Optional fields are there three times out of four; a part that nobody plays has none.
            let played = !matches!(about, Some((_, None)));
            if field.required || (played && self.below(4) > 0) {
                let value = match about {
                    Some((fact, Some(holder))) => repeated(fact, holder, &holders),
                    _ => None,
                };
                let value = value.unwrap_or_else(|| self.value(field, valid_from));
                // Only text and addresses can be longer than their bound; the definition leaves room for the others.
                fields.push((field.key.clone(), value.chars().take(field.max_length).collect()));
            }
        }
        let certificate_number = format!("CS{}", self.text(14));
        SyntheticLicense {
            certificate_number,
            holders,
            issue_date: valid_from,
            valid_from,
            valid_until,
            fields,
        }
    }

    fn holders(&mut self, license_type: &LicenseType) -> Vec<(String, HolderRef)> {
        let more = license_type.max_holders > license_type.min_holders && self.below(4) == 0;
        let count = license_type.min_holders + usize::from(more);
        let mut holders: Vec<(String, HolderRef)> = Vec::with_capacity(count);
        // A number that has come up already is drawn again; there are a million others.
        while holders.len() < count {
            let natural = match license_type.holders {
                HolderKind::Natural => true,
                HolderKind::Legal => false,
                HolderKind::Both => self.below(4) > 0,
            };
            let holder = if natural {
                (self.person_name(), self.holder(HolderTypeCode::CitizenNumber))
            } else {
                (self.organisation_name(), self.holder(HolderTypeCode::Uscc))
            };
            if holders.iter().all(|(_, other)| *other != holder.1) {
                holders.push(holder);
            }
        }
        holders
    }

    fn number_of_region(&mut self, region: &str) -> String {
        let day = FIRST_BIRTH_DAY + i32::try_from(self.below(BIRTH_DAYS)).expect("a bounded number of days");
        let (year, month, day) = Date::from_days(day).expect("between 1940 and 2005").civil();
        let body = format!("{region}{year:04}{month:02}{day:02}000");
        let bytes: &[u8; 17] = body.as_bytes().try_into().expect("6 + 8 + 3 ASCII digits");
        format!("{body}{}", char::from(citizen_check(bytes)))
    }

    /// A value that no holder determines.
    fn value(&mut self, field: &Field, valid_from: Date) -> String {
        match &field.kind {
            FieldKind::CitizenNumber | FieldKind::HolderNumber => self.citizen_number(),
            FieldKind::Uscc => self.uscc().to_string(),
            FieldKind::Date | FieldKind::PartialDate => shift(valid_from, -self.days(PAST_DAYS)).to_string(),
            FieldKind::Number => (self.below(9) + 1).to_string(),
            // The sequence 000 is even, which says female.
            FieldKind::Code { values } => {
                match values.iter().find(|value| field.key == "sex" && *value == "女") {
                    Some(value) => value.clone(),
                    None => values.get(self.index(values.len())).cloned().unwrap_or_default(),
                }
            }
            FieldKind::Address => {
                let (_, region) = self.pick(&REGIONS);
                format!("{region}测试路{}号", self.below(999) + 1)
            }
            FieldKind::Text => self.free_text(field),
        }
    }

    fn free_text(&mut self, field: &Field) -> String {
        let key = field.key.to_ascii_lowercase();
        if key.contains("number") {
            self.text(field.max_length.min(19))
        } else if ["institution", "office", "bank"].iter().any(|word| key.contains(word)) {
            format!("测试{}{}机构", self.pick(&SYLLABLES), self.pick(&SYLLABLES))
        } else if ["name", "representative", "supervisor", "approver"].iter().any(|word| key.contains(word)) {
            self.person_name()
        } else {
            format!("测试{}", field.label)
        }
    }

    /// `length` characters of 0-9A-Z.
    fn text(&mut self, length: usize) -> String {
        (0..length).map(|_| char::from(self.pick(SERIAL_ALPHABET))).collect()
    }

    fn days(&mut self, bound: u64) -> i32 {
        i32::try_from(self.below(bound)).expect("the bounds are some years")
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: &[T; N]) -> T {
        from[self.index(N)]
    }

    /// An index below `length`; 0 for an empty list.
    fn index(&mut self, length: usize) -> usize {
        let below = self.below(u64::try_from(length).unwrap_or(u64::MAX).max(1));
        usize::try_from(below).expect("below a length")
    }

    /// A number below `bound`, which is not 0. The bounds are so small that the modulo's bias does not show.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// splitmix64 (S. Vigna, public domain description).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The value of a fact that a face repeats; `None` where the holder's number says no birth date.
fn repeated(
    fact: HolderFact,
    (name, holder): &(String, HolderRef),
    holders: &[(String, HolderRef)],
) -> Option<String> {
    Some(match fact {
        HolderFact::Name => name.clone(),
        HolderFact::Number => holder.number().to_owned(),
        HolderFact::BirthDate => holder.birth_date()?,
        HolderFact::AllNames => holders.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("、"),
    })
}

/// A date some days away, or the date itself where the calendar of licenses ends.
fn shift(date: Date, days: i32) -> Date {
    Date::from_days(date.days().saturating_add(days)).unwrap_or(date)
}

/// The USCC of an enterprise, with both check characters.
fn enterprise(region: &str, organisation: [u8; 8]) -> Uscc {
    let mut text = format!("91{region}").into_bytes();
    text.extend(organisation);
    text.push(organisation_check(&organisation));
    let body: &[u8; 17] = text.as_slice().try_into().expect("2 + 6 + 8 + 1 characters");
    let check = uscc_check(body);
    text.push(check);
    let text = String::from_utf8(text).expect("ASCII");
    text.parse().expect("both check characters are computed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::license_type::NamedHolder;
    use std::collections::HashSet;

    fn today() -> Date {
        "2026-11-21".parse().unwrap()
    }

    #[test]
    fn every_license_fits_its_type_and_is_valid_today() {
        for (license_type, seed) in LicenseType::builtin().iter().zip(0..) {
            let mut synthetic = Synthetic::new(seed);
            for _ in 0..500 {
                let license = synthetic.license(license_type, today());
                let holders: Vec<_> =
                    license.holders.iter().map(|(name, holder)| NamedHolder { name, holder }).collect();
                let SyntheticLicense { fields, valid_from, valid_until, .. } = &license;
                assert_eq!(license_type.check(&holders, fields, *valid_until, *valid_from), Ok(()));
                assert!(*valid_from <= today() && valid_until.is_none_or(|end| end > today()));
                assert!(license.holders.iter().all(|(name, _)| name.starts_with("测试")));
            }
        }
    }

    #[test]
    fn fits_the_narrowest_definitions_and_the_ends_of_the_calendar() {
        let kinds = r#"["text","address","number"]"#;
        let kinds: Vec<Value> = serde_json::from_str(kinds).unwrap();
        let fields: Vec<_> = kinds
            .iter()
            .zip(["name", "obligee", "number"])
            .map(|(kind, key)| {
                serde_json::json!({"key": key, "label": "字段", "labelEn": "Field", "kind": kind, "required": true,
                    "sensitivity": 1, "maxLength": 1})
            })
            .collect();
        let json = serde_json::json!({
            "code": "11100000DE0000014G001", "name": "测试证", "nameEn": "Test license", "authorityName": "测试机构",
            "holders": "both", "minHolders": 15, "maxHolders": 16, "validity": "required", "fields": fields,
        });
        let license_type = LicenseType::parse(&json.to_string()).unwrap();
        for (day, seed) in [Date::MIN, today(), Date::MAX].into_iter().zip(0..) {
            let license = Synthetic::new(seed).license(&license_type, day);
            let holders: Vec<_> =
                license.holders.iter().map(|(name, holder)| NamedHolder { name, holder }).collect();
            assert_eq!(
                license_type.check(&holders, &license.fields, license.valid_until, license.valid_from),
                Ok(())
            );
        }
    }

    #[test]
    fn fields_agree_with_the_holders() {
        let types = LicenseType::builtin();
        let marriage = types.iter().find(|license_type| license_type.name == "结婚证").unwrap();
        let license = Synthetic::new(7).license(marriage, today());
        let value = |key: &str| license.fields.iter().find(|(k, _)| k == key).unwrap().1.as_str();
        assert_eq!(value("maleName"), license.holders[0].0);
        assert_eq!(value("femaleNumber"), license.holders[1].1.number());
        assert_eq!(value("femaleBirthDate").replace('-', ""), license.holders[1].1.number()[6..14]);
    }

    #[test]
    fn numbers_are_valid_and_nobodys() {
        let mut synthetic = Synthetic::new(1);
        let mut serials = HashSet::new();
        for _ in 0..5_000 {
            let citizen = synthetic.citizen_number();
            assert_eq!(&citizen[14..17], "000");
            assert_eq!(HolderRef::new("111", &citizen).unwrap().number(), citizen);
            let uscc = synthetic.uscc();
            assert_eq!(uscc.as_str().parse(), Ok(uscc));
            assert_eq!((&uscc.as_str()[..2], &uscc.as_str()[8..10]), ("91", "XX"));
            assert!(synthetic.person_name().starts_with("测试"));
            assert!(synthetic.organisation_name().starts_with("测试"));
            assert!(serials.insert(synthetic.serial()));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        // First values of splitmix64 from seed 0, as its author prints them.
        let mut synthetic = Synthetic::new(0);
        assert_eq!((synthetic.next(), synthetic.next()), (0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4));
        for license_type in &LicenseType::builtin() {
            let make = |seed| Synthetic::new(seed).license(license_type, today());
            assert_eq!(make(42), make(42));
            assert_ne!(make(42), make(43));
        }
    }
}
