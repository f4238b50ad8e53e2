//! License holders (持证主体): a type code of GB/T 36903 annex A and a number.
//!
//! A number is brought into one form, here, before it is checked, compared or hashed, so that one person is one
//! holder. It is personal data: no error, no `Debug` and no other text of this module shows any part of it.
//!
//! | type | form | source |
//! |---|---|---|
//! | 001 | 18 characters, both check characters right | GB 32100, GB 11714 |
//! | 099 | as written; a right USCC is a holder of type 001 | |
//! | 111 | 18 characters with a right check character; 15 digits of before 1999 become 18 | GB 11643-1989, GB 11643-1999 |
//! | 551, 552 | as 111, beginning with 81 or 82, and with 83; such a number under 111 is one of these | residence permit rules, State Council 2018 |
//! | 516 | H or M and eight digits for life; two digits that count renewals are cut off | National Immigration Administration, card of 2013 |
//! | 511 | eight digits for life; two digits and a letter of the older booklet are cut off | National Immigration Administration, card of 2015 |
//! | 999 | as written; a right number of 18 characters is a holder of type 111, 551 or 552 | |
//! | others | as written | |
//!
//! Everywhere white space inside goes; in 411 to 414, 511 and 516 hyphens and brackets too.
//!
//! Pure functions; nothing to lose.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;

use crate::date::is_day;
use crate::identifier::{IdentifierError, Uscc, serde_as_string};

/// Most characters of a holder's number.
pub const MAX_NUMBER_LENGTH: usize = 64;
/// Most bytes looked at before normalisation: four for each character of the longest number.
const MAX_RAW_BYTES: usize = 4 * MAX_NUMBER_LENGTH;
/// Characters of a citizen number (GB 11643).
const CITIZEN_NUMBER_LENGTH: usize = 18;
/// GB 11643 weights of the first seventeen digits.
const CITIZEN_WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
/// GB 11643 check characters by the weighted sum modulo 11.
const CITIZEN_CHECKS: &[u8; 11] = b"10X98765432";
/// Years of birth that can stand in a citizen number: archives hold people born in the nineteenth century, and
/// nobody born after this century is registered yet.
const BIRTH_YEARS: std::ops::RangeInclusive<i32> = 1850..=2099;

/// Why a holder is none. Says nothing of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HolderError {
    /// The type code is not in the code set.
    #[error("there is no such holder type code")]
    TypeCode,
    /// The number is empty, or only white space.
    #[error("the holder's number is empty")]
    Empty,
    /// The number is longer than 64 characters.
    #[error("the holder's number has more than {MAX_NUMBER_LENGTH} characters")]
    TooLong,
    /// The number holds a control, formatting or unassigned character.
    #[error("the holder's number holds a character that cannot be printed")]
    NotPrintable,
    /// The number is not a USCC, although the type code says so.
    #[error("the holder's number is no unified social credit code: {0}")]
    Uscc(IdentifierError),
    /// The number does not have the form of a citizen number: 17 digits and a digit or X.
    #[error("a citizen number has 17 digits and a check character")]
    CitizenNumber,
    /// The citizen number holds a birth date that cannot be one.
    #[error("the citizen number holds no possible birth date")]
    BirthDate,
    /// The citizen number's check character is wrong.
    #[error("the citizen number's check character is wrong")]
    CitizenCheck,
    /// A residence permit's number that does not begin with 81 or 82 (551), or with 83 (552).
    #[error("a residence permit's number begins with 81 or 82 for Hong Kong and Macao, with 83 for Taiwan")]
    ResidenceRegion,
}

impl HolderError {
    /// Whether the form is right and only a check character is wrong.
    pub const fn is_check_error(self) -> bool {
        match self {
            Self::Uscc(error) => error.is_check_error(),
            Self::CitizenCheck => true,
            _ => false,
        }
    }
}

/// The kind of number that identifies a holder (持证主体代码类型代码, GB/T 36903 annex A).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HolderTypeCode {
    /// 001 统一社会信用代码.
    Uscc,
    /// 099 其他法人或其他组织有效证件代码.
    OtherOrganisation,
    /// 111 公民身份号码.
    CitizenNumber,
    /// 114 军官证.
    MilitaryOfficer,
    /// 115 武警警官证.
    ArmedPoliceOfficer,
    /// 118 士兵证.
    Soldier,
    /// 119 武警士兵证.
    ArmedPoliceSoldier,
    /// 120 文职人员证.
    MilitaryCivilian,
    /// 122 武警文职人员证.
    ArmedPoliceCivilian,
    /// 411 外交护照.
    DiplomaticPassport,
    /// 412 公务护照.
    ServicePassport,
    /// 413 公务普通护照.
    PublicAffairsPassport,
    /// 414 普通护照.
    OrdinaryPassport,
    /// 511 台湾居民来往大陆通行证.
    TaiwanPermit,
    /// 516 港澳居民来往内地通行证.
    HongKongMacaoPermit,
    /// 551 港澳居民居住证.
    HongKongMacaoResidence,
    /// 552 台湾居民居住证.
    TaiwanResidence,
    /// 999 其他自然人有效证件代码.
    OtherPerson,
}

impl HolderTypeCode {
    /// The whole code set, in the order of the codes.
    pub const ALL: &[Self] = &[
        Self::Uscc,
        Self::OtherOrganisation,
        Self::CitizenNumber,
        Self::MilitaryOfficer,
        Self::ArmedPoliceOfficer,
        Self::Soldier,
        Self::ArmedPoliceSoldier,
        Self::MilitaryCivilian,
        Self::ArmedPoliceCivilian,
        Self::DiplomaticPassport,
        Self::ServicePassport,
        Self::PublicAffairsPassport,
        Self::OrdinaryPassport,
        Self::TaiwanPermit,
        Self::HongKongMacaoPermit,
        Self::HongKongMacaoResidence,
        Self::TaiwanResidence,
        Self::OtherPerson,
    ];

    /// The three digits.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uscc => "001",
            Self::OtherOrganisation => "099",
            Self::CitizenNumber => "111",
            Self::MilitaryOfficer => "114",
            Self::ArmedPoliceOfficer => "115",
            Self::Soldier => "118",
            Self::ArmedPoliceSoldier => "119",
            Self::MilitaryCivilian => "120",
            Self::ArmedPoliceCivilian => "122",
            Self::DiplomaticPassport => "411",
            Self::ServicePassport => "412",
            Self::PublicAffairsPassport => "413",
            Self::OrdinaryPassport => "414",
            Self::TaiwanPermit => "511",
            Self::HongKongMacaoPermit => "516",
            Self::HongKongMacaoResidence => "551",
            Self::TaiwanResidence => "552",
            Self::OtherPerson => "999",
        }
    }

    /// Whether the holder is a natural person; otherwise it is an organisation.
    pub const fn is_natural(self) -> bool {
        !matches!(self, Self::Uscc | Self::OtherOrganisation)
    }
}

impl FromStr for HolderTypeCode {
    type Err = HolderError;

    fn from_str(text: &str) -> Result<Self, HolderError> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(HolderError::TypeCode)
    }
}

impl fmt::Display for HolderTypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

serde_as_string!(HolderTypeCode);

/// A holder: type code and number in its one form. Has no `Display`, and its `Debug` shows the type code only.
///
/// Two holders are equal when type code and number are; the registrar's mark is no part of who it is.
#[derive(Clone)]
pub struct HolderRef {
    type_code: HolderTypeCode,
    number: Box<str>,
    as_registered: bool,
}

impl HolderRef {
    /// Brings a number into its one form and checks it. The region in a citizen number is not compared with a table:
    /// tables differ, and old regions stay in the numbers given out there.
    ///
    /// # Errors
    /// [`HolderError`] for a type code outside the set; a number that is empty, longer than 64 characters or not
    /// printable; for 001 one that is no USCC; for 111, 551 and 552 one without the form, a possible birth date or the
    /// right check character.
    pub fn new(type_code: &str, number: &str) -> Result<Self, HolderError> {
        Self::read(type_code.parse()?, number, false)
    }

    /// The same, and a wrong check character is taken: a registrar gave the number out like this (按登记).
    ///
    /// # Errors
    /// [`HolderError`] for anything else that is wrong.
    pub fn as_registered(type_code: &str, number: &str) -> Result<Self, HolderError> {
        Self::read(type_code.parse()?, number, true)
    }

    fn read(type_code: HolderTypeCode, number: &str, lenient: bool) -> Result<Self, HolderError> {
        let number = normalise(number)?;
        let check = |checked: Result<(), HolderError>| match checked {
            Err(error) if lenient && error.is_check_error() => Ok(true),
            checked => checked.map(|()| false),
        };
        let uscc = |number: &str| number.parse::<Uscc>().map(drop).map_err(HolderError::Uscc);
        let (type_code, number, as_registered) = match type_code {
            HolderTypeCode::Uscc => {
                let deviates = check(uscc(&number))?;
                (type_code, number, deviates)
            }
            HolderTypeCode::OtherOrganisation if uscc(&number).is_ok() => {
                (HolderTypeCode::Uscc, number, false)
            }
            HolderTypeCode::CitizenNumber => {
                let number = eighteen(&number).unwrap_or(number);
                let deviates = check(check_citizen_number(&number))?;
                (citizen_kind(&number), number, deviates)
            }
            HolderTypeCode::HongKongMacaoResidence | HolderTypeCode::TaiwanResidence => {
                let deviates = check(check_citizen_number(&number))?;
                if citizen_kind(&number) != type_code {
                    return Err(HolderError::ResidenceRegion);
                }
                (type_code, number, deviates)
            }
            HolderTypeCode::OtherPerson if check_citizen_number(&number).is_ok() => {
                (citizen_kind(&number), number, false)
            }
            HolderTypeCode::HongKongMacaoPermit => (type_code, hong_kong_macao(compact(&number)), false),
            HolderTypeCode::TaiwanPermit => (type_code, taiwan(compact(&number)), false),
            HolderTypeCode::DiplomaticPassport
            | HolderTypeCode::ServicePassport
            | HolderTypeCode::PublicAffairsPassport
            | HolderTypeCode::OrdinaryPassport => (type_code, compact(&number), false),
            _ => (type_code, number, false),
        };
        Ok(Self { type_code, number: number.into(), as_registered })
    }

    /// Whether the check character is wrong and a registrar answers for it.
    pub const fn is_as_registered(&self) -> bool {
        self.as_registered
    }

    /// The person's birth date as `YYYY-MM-DD`, where the number says one: 111, 551 and 552.
    pub fn birth_date(&self) -> Option<String> {
        let dated = matches!(
            self.type_code,
            HolderTypeCode::CitizenNumber
                | HolderTypeCode::HongKongMacaoResidence
                | HolderTypeCode::TaiwanResidence
        );
        let date = self.number.get(6..14).filter(|_| dated)?;
        Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]))
    }

    /// The kind of number.
    pub const fn type_code(&self) -> HolderTypeCode {
        self.type_code
    }

    /// The number in its one form. Personal data.
    pub fn number(&self) -> &str {
        &self.number
    }
}

impl PartialEq for HolderRef {
    fn eq(&self, other: &Self) -> bool {
        (self.type_code, &self.number) == (other.type_code, &other.number)
    }
}

impl Eq for HolderRef {}

impl Hash for HolderRef {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.type_code, &self.number).hash(state);
    }
}

impl PartialOrd for HolderRef {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HolderRef {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.type_code, &self.number).cmp(&(other.type_code, &other.number))
    }
}

impl fmt::Debug for HolderRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HolderRef").field("type_code", &self.type_code.as_str()).finish_non_exhaustive()
    }
}

fn normalise(number: &str) -> Result<String, HolderError> {
    let number = number.trim();
    // Bounded before the work: one character can become eighteen under NFKC.
    if number.len() > MAX_RAW_BYTES {
        return Err(HolderError::TooLong);
    }
    let mut number = one_spelling(number);
    if !number.is_ascii() {
        // Marks that a space parted take an order when it goes, and upper case can undo NFKC: a form is one that stays.
        let again = one_spelling(&number);
        number = one_spelling(&again);
        if number != again {
            return Err(HolderError::NotPrintable);
        }
    }
    if number.is_empty() {
        return Err(HolderError::Empty);
    }
    if number.chars().count() > MAX_NUMBER_LENGTH {
        return Err(HolderError::TooLong);
    }
    if number.chars().all(is_printable) { Ok(number) } else { Err(HolderError::NotPrintable) }
}

/// NFKC in upper case, without spaces: a space inside tells nobody from somebody else.
fn one_spelling(number: &str) -> String {
    let upper = number.nfkc().collect::<String>().to_uppercase();
    let number: String = upper.nfkc().filter(|character| *character != ' ').collect();
    // NFKC makes spaces out of other white space at the ends.
    number.trim().to_owned()
}

/// Without what only separates: hyphens and brackets, unless nothing else is there.
fn compact(number: &str) -> String {
    let compact: String = number
        .chars()
        .filter(|character| !matches!(character, '-' | '(' | ')' | '\u{2010}'..='\u{2015}'))
        .collect();
    if compact.is_empty() { number.to_owned() } else { compact }
}

/// 516: the letter and the eight digits that stay for life.
fn hong_kong_macao(mut number: String) -> String {
    let bytes = number.as_bytes();
    let counted =
        bytes.len() == 11 && matches!(bytes[0], b'H' | b'M') && bytes.iter().skip(1).all(u8::is_ascii_digit);
    if counted {
        number.truncate(9);
    }
    number
}

/// 511: the eight digits that stay for life.
fn taiwan(mut number: String) -> String {
    let digits = number.strip_suffix(|last: char| last.is_ascii_uppercase()).unwrap_or(&number);
    if digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        number.truncate(8);
    }
    number
}

/// The kind of a number that has a citizen number's form, by its first two digits.
fn citizen_kind(number: &str) -> HolderTypeCode {
    match number.get(..2) {
        Some("81" | "82") => HolderTypeCode::HongKongMacaoResidence,
        Some("83") => HolderTypeCode::TaiwanResidence,
        _ => HolderTypeCode::CitizenNumber,
    }
}

/// The number of 18 characters that a number of 15 digits became: the century, and the check character. The sequences
/// 996 to 999 were kept for people born in the nineteenth century.
fn eighteen(number: &str) -> Option<String> {
    let old = number.as_bytes();
    if old.len() != 15 || !old.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let century = if matches!(old.get(12..)?, b"996" | b"997" | b"998" | b"999") { "18" } else { "19" };
    let body = format!("{}{century}{}", number.get(..6)?, number.get(6..)?);
    let check = citizen_check(body.as_bytes().try_into().ok()?);
    Some(format!("{body}{}", char::from(check)))
}

/// Shortest number of a natural person that is looked for inside a text: shorter ones stand there by chance.
const SHORTEST_SOUGHT: usize = 6;

/// Whether a public text of digits and capitals, such as a serial, gives a number away: it is a holder's number, has a
/// natural holder's in it, or anybody's right citizen number. A citizen number gives itself away without its check character
/// and in the 15 digits of before 1999 too.
pub fn gives_away<'a>(text: &str, holders: impl IntoIterator<Item = &'a HolderRef>) -> bool {
    let of_holder = |holder: &HolderRef| {
        let number: String = holder.number.chars().filter(char::is_ascii_alphanumeric).collect();
        let sought = holder.type_code.is_natural() && number.len() >= SHORTEST_SOUGHT;
        let holds = |part: Option<&str>| part.is_some_and(|part| text.contains(part));
        let dated = || {
            let fifteen =
                number.get(..6).zip(number.get(8..17)).map(|(region, rest)| format!("{region}{rest}"));
            holder.birth_date().is_some() && (holds(number.get(..17)) || holds(fifteen.as_deref()))
        };
        number == text || (sought && holds(Some(&number))) || dated()
    };
    holders.into_iter().any(of_holder) || holds_citizen_number(text)
}

/// Whether a right citizen number stands anywhere in a text.
fn holds_citizen_number(text: &str) -> bool {
    let numbers = text.as_bytes().windows(CITIZEN_NUMBER_LENGTH);
    numbers
        .filter_map(|window| std::str::from_utf8(window).ok())
        .any(|text| check_citizen_number(text).is_ok())
}

/// Whether a character shows as itself: no control character, no white space but the space, none of the
/// formatting characters that make two texts look the same, no private use, no non-character.
pub(crate) fn is_printable(character: char) -> bool {
    let hidden = matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..);
    !hidden && !character.is_control() && (character == ' ' || !character.is_whitespace())
}

/// GB 11643: six digits of region, eight of birth date, three of sequence, one check character.
fn check_citizen_number(number: &str) -> Result<(), HolderError> {
    let bytes: &[u8; CITIZEN_NUMBER_LENGTH] =
        number.as_bytes().try_into().map_err(|_| HolderError::CitizenNumber)?;
    let [body @ .., check] = bytes;
    if !body.iter().all(u8::is_ascii_digit) || !(check.is_ascii_digit() || *check == b'X') {
        return Err(HolderError::CitizenNumber);
    }
    let read = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    let small = |digits: &[u8]| u8::try_from(read(digits)).expect("two decimal digits");
    let (year, month, day) = (read(&body[6..10]), small(&body[10..12]), small(&body[12..14]));
    if !BIRTH_YEARS.contains(&year) || !is_day(year, month, day) {
        return Err(HolderError::BirthDate);
    }
    if *check == citizen_check(body) { Ok(()) } else { Err(HolderError::CitizenCheck) }
}

/// The last character of a citizen number (GB 11643; ISO 7064 MOD 11-2) of seventeen digits.
pub(crate) fn citizen_check(body: &[u8; 17]) -> u8 {
    let sum: u32 =
        body.iter().zip(CITIZEN_WEIGHTS).map(|(digit, weight)| u32::from(digit - b'0') * weight).sum();
    CITIZEN_CHECKS[usize::try_from(sum % 11).expect("less than 11")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of the standard itself.
    const CITIZEN: &str = "11010519491231002X";
    const USCC: &str = "91350100M000100Y43";

    fn number(type_code: &str, number: &str) -> Result<String, HolderError> {
        HolderRef::new(type_code, number).map(|holder| holder.number().to_owned())
    }

    #[test]
    fn the_code_set_is_whole() {
        let codes: Vec<_> = HolderTypeCode::ALL.iter().map(|code| code.as_str()).collect();
        let set = [
            "001", "099", "111", "114", "115", "118", "119", "120", "122", "411", "412", "413", "414", "511",
            "516", "551", "552", "999",
        ];
        assert_eq!(codes, set);
        for code in HolderTypeCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert_eq!(serde_json::to_string(code).unwrap(), format!("\"{code}\""));
            assert_eq!(code.is_natural(), !matches!(code.as_str(), "001" | "099"));
        }
        for code in ["", "1", "0111", "112", " 111", "１１１", "000"] {
            assert_eq!(number(code, CITIZEN), Err(HolderError::TypeCode), "{code}");
        }
    }

    #[test]
    fn spellings_of_one_number_are_one_holder() {
        for spelling in [
            CITIZEN,
            "11010519491231002x",
            " 11010519491231002X\t",
            "１１０１０５１９４９１２３１００２ｘ",
            "\u{3000}11010519491231002X",
        ] {
            assert_eq!(number("111", spelling).as_deref(), Ok(CITIZEN), "{spelling}");
        }
        assert_eq!(number("001", "91350100m000100y43\n").as_deref(), Ok(USCC));
        assert_eq!(number("414", "e12 345").as_deref(), Ok("E12345"));
        assert_eq!(number("114", "军字第ａ001号").as_deref(), Ok("军字第A001号"));
    }

    #[test]
    fn checks_citizen_numbers() {
        assert_eq!(number("111", "440524188001010014").as_deref(), Ok("440524188001010014"));
        let cases = [
            ("110105194912310021", HolderError::CitizenCheck),
            ("110105194912310020", HolderError::CitizenCheck),
            ("11010519491231002", HolderError::CitizenNumber),
            ("11010549123100", HolderError::CitizenNumber),
            ("110105491331002", HolderError::BirthDate),
            ("11010519491231002Y", HolderError::CitizenNumber),
            ("1101051949123100XX", HolderError::CitizenNumber),
            ("11010519490229002X", HolderError::BirthDate),
            ("11010519491331002X", HolderError::BirthDate),
            ("11010518491231002X", HolderError::BirthDate),
            ("11010521000101002X", HolderError::BirthDate),
        ];
        for (text, error) in cases {
            assert_eq!(number("111", text), Err(error), "{text}");
        }
        assert!(HolderError::CitizenCheck.is_check_error() && !HolderError::BirthDate.is_check_error());
        // Another type code says nothing of check characters.
        assert!(number("999", "110105194912310021").is_ok());
    }

    fn holder(type_code: &str, number: &str) -> (HolderTypeCode, String) {
        let holder = HolderRef::new(type_code, number).unwrap();
        (holder.type_code(), holder.number().to_owned())
    }

    #[test]
    fn one_person_is_one_holder() {
        // Generated: the sequence 000, and right check characters.
        let hong_kong = "810000199001010000";
        let taiwan = "830000199001010004";
        assert!(check_citizen_number(hong_kong).is_ok() && check_citizen_number(taiwan).is_ok());
        for (spellings, one) in [
            (
                vec![
                    ("516", "H12345678"),
                    ("516", "H1234567800"),
                    ("516", "h12345678(00)"),
                    ("516", "H12345678-02"),
                ],
                (HolderTypeCode::HongKongMacaoPermit, "H12345678"),
            ),
            (
                vec![
                    ("511", "12345678"),
                    ("511", "1234567801"),
                    ("511", "1234567801(B)"),
                    ("511", "1234 5678"),
                ],
                (HolderTypeCode::TaiwanPermit, "12345678"),
            ),
            (
                vec![("551", hong_kong), ("111", hong_kong), ("999", hong_kong)],
                (HolderTypeCode::HongKongMacaoResidence, hong_kong),
            ),
            (
                vec![("552", taiwan), ("111", taiwan), ("999", taiwan)],
                (HolderTypeCode::TaiwanResidence, taiwan),
            ),
            (
                vec![
                    ("111", CITIZEN),
                    ("111", "110105491231002"),
                    ("999", CITIZEN),
                    ("111", "110105 19491231 002X"),
                ],
                (HolderTypeCode::CitizenNumber, CITIZEN),
            ),
            (vec![("001", USCC), ("099", USCC)], (HolderTypeCode::Uscc, USCC)),
            (
                vec![("414", "E12345678"), ("414", "E-1234 5678"), ("414", "ｅ12345678")],
                (HolderTypeCode::OrdinaryPassport, "E12345678"),
            ),
        ] {
            for (type_code, number) in spellings {
                assert_eq!(holder(type_code, number), (one.0, one.1.to_owned()), "{type_code} {number}");
            }
        }
        // The centenarians of the old numbers.
        assert_eq!(&holder("111", "110105991231999").1[6..10], "1899");
        // Another form is somebody else's number, and stays.
        assert_eq!(holder("516", "C12345678").1, "C12345678");
        assert_eq!(holder("511", "T123456").1, "T123456");
        assert_eq!(holder("516", "(-)").1, "(-)");
    }

    #[test]
    fn residence_permits_have_their_region_and_their_check_character() {
        assert_eq!(number("552", "810000199001010000"), Err(HolderError::ResidenceRegion));
        assert_eq!(number("551", "830000199001010004"), Err(HolderError::ResidenceRegion));
        assert_eq!(number("551", CITIZEN), Err(HolderError::ResidenceRegion));
        assert_eq!(number("552", "830000199001010005"), Err(HolderError::CitizenCheck));
        assert_eq!(number("551", "H12345678"), Err(HolderError::CitizenNumber));
    }

    #[test]
    fn a_registrars_deviation_takes_an_explicit_mark() {
        for (type_code, text) in
            [("001", "91350100M000100Y4A"), ("111", "110105194912310021"), ("552", "830000199001010005")]
        {
            assert!(number(type_code, text).unwrap_err().is_check_error());
            let marked = HolderRef::as_registered(type_code, text).unwrap();
            assert!(marked.is_as_registered());
            assert_eq!(marked.number(), text);
        }
        // Nothing but a check character deviates, and a right number has no mark.
        assert!(!HolderRef::as_registered("001", USCC).unwrap().is_as_registered());
        assert_eq!(HolderRef::as_registered("001", USCC).unwrap(), HolderRef::new("001", USCC).unwrap());
        for (type_code, text) in [("001", "91350100"), ("111", "11010519491331002X"), ("552", CITIZEN)] {
            assert!(HolderRef::as_registered(type_code, text).is_err());
        }
    }

    #[test]
    fn finds_citizen_numbers_in_a_text() {
        assert!(holds_citizen_number(CITIZEN) && holds_citizen_number(&format!("A{CITIZEN}7")));
        assert!(!holds_citizen_number("110105194912310021") && !holds_citizen_number("20230000403"));
    }

    #[test]
    fn a_citizen_number_gives_itself_away_in_every_form() {
        let holders = [HolderRef::new("111", CITIZEN).unwrap()];
        for text in
            [CITIZEN, "110105491231002", "A110105491231002B", "11010519491231002", "911010519491231002"]
        {
            assert!(gives_away(text, &holders), "{text}");
        }
        for text in ["110105491231003", "1101051949123100", "1949123110", "11010549123100"] {
            assert!(!gives_away(text, &holders), "{text}");
        }
        // A number of another kind has no second form.
        let other = [HolderRef::new("999", "110105194912310021").unwrap()];
        assert!(!gives_away("110105491231002", &other));
    }

    #[test]
    fn birth_dates_are_those_of_the_number() {
        let born = |type_code, number| HolderRef::new(type_code, number).unwrap().birth_date();
        assert_eq!(born("111", CITIZEN).as_deref(), Some("1949-12-31"));
        assert_eq!(born("551", "810000199001010000").as_deref(), Some("1990-01-01"));
        assert_eq!((born("414", "E12345678"), born("001", USCC)), (None, None));
    }

    #[test]
    fn checks_usccs() {
        let wrong = number("001", "91350100M000100Y4A").unwrap_err();
        assert_eq!(wrong, HolderError::Uscc(IdentifierError::UsccCheck { found: 'A', right: '3' }));
        assert!(wrong.is_check_error());
        assert!(!number("001", "91350100").unwrap_err().is_check_error());
        assert!(number("099", "91350100").is_ok());
    }

    #[test]
    fn bounds_and_characters() {
        for empty in ["", "  ", "\u{3000}\u{a0}\n"] {
            assert_eq!(number("999", empty), Err(HolderError::Empty));
        }
        assert_eq!(number("999", &"A".repeat(64)).map(|n| n.len()), Ok(64));
        assert_eq!(number("999", &"A".repeat(65)), Err(HolderError::TooLong));
        assert_eq!(number("999", &"A".repeat(1 << 20)), Err(HolderError::TooLong));
        // One character that NFKC makes eighteen of.
        assert_eq!(number("999", &"\u{fdfa}".repeat(5)), Err(HolderError::TooLong));
        // A space parted two marks; without it they stand in their order.
        assert_eq!(normalise("\u{1e08f}\u{fe72}"), normalise("\u{64c}\u{1e08f}"));
        for hidden in
            ["A\0B", "A\nB", "A\u{200b}B", "A\u{202e}B", "A\u{feff}B", "A\u{7f}", "\u{e000}", "A\u{2028}B"]
        {
            assert_eq!(number("999", hidden), Err(HolderError::NotPrintable), "{hidden:?}");
        }
    }

    #[test]
    fn shows_no_number() {
        let holder = HolderRef::new("111", CITIZEN).unwrap();
        assert_eq!(format!("{holder:?}"), "HolderRef { type_code: \"111\", .. }");
        for type_code in ["111", "001"] {
            let error = HolderRef::new(type_code, "110105194912310029").unwrap_err();
            assert!(!format!("{error} {error:?}").contains("1949"));
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{1,40}") {
            if let Ok(once) = normalise(&text) {
                prop_assert_eq!(normalise(&once), Ok(once.clone()));
                prop_assert!((1..=64).contains(&once.chars().count()));
            }
        }

        #[test]
        fn refuses_any_changed_digit(place in 0..18_usize, other in "[0-9X]") {
            let mut changed = CITIZEN.to_owned();
            changed.replace_range(place..=place, &other);
            prop_assume!(changed != CITIZEN);
            prop_assert!(HolderRef::new("111", &changed).is_err());
        }

        #[test]
        fn never_panics(text in any::<String>(), index in 0..HolderTypeCode::ALL.len()) {
            let _ = HolderRef::new(HolderTypeCode::ALL[index].as_str(), &text);
        }
    }
}
