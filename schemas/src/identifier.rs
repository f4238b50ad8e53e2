//! License identifiers (GB/T 36904), unified social credit codes (GB 32100) and the types inside them.
//!
//! Each type is parsed once at the edge and cannot be built wrong; printing gives back what was parsed, byte for
//! byte. Nothing is trimmed or upper-cased here: an identifier has one spelling. Errors name at most one
//! character of the input and never echo more of it.
//!
//! Pure functions; nothing to lose.

use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Root of every license identifier (GB/T 36904).
pub const ROOT: &str = "1.2.156.3005.2";
/// Characters of a USCC.
pub const USCC_LENGTH: usize = 18;
/// Characters of a license type code: a USCC and three digits.
pub const TYPE_CODE_LENGTH: usize = 21;
/// Most characters of a serial.
pub const MAX_SERIAL_LENGTH: usize = 64;
/// The last version (版本号) of a license: it has three digits.
pub const MAX_VERSION: u16 = 999;
/// Characters of the longest identifier: its parts, and the five dots between them.
pub const MAX_IDENTIFIER_LENGTH: usize =
    ROOT.len() + TYPE_CODE_LENGTH + USCC_LENGTH + MAX_SERIAL_LENGTH + 3 + 1 + 5;

/// GB 32100 alphabet, in the order of the values 0 to 30: without I, O, S, V and Z.
pub(crate) const USCC_ALPHABET: &[u8; 31] = b"0123456789ABCDEFGHJKLMNPQRTUWXY";
/// Characters of MOD 37,36 and of GB 11714, in the order of the values 0 to 35.
const CHECK_ALPHABET: &[u8; 36] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// Stands in the tables of values for a byte that has none.
const NO_VALUE: u8 = u8::MAX;
/// Values of all bytes: two identifiers and more are read for every use, and a look-up costs less than a search.
const USCC_VALUES: [u8; 256] = values(USCC_ALPHABET);
const CHECK_VALUES: [u8; 256] = values(CHECK_ALPHABET);
/// The next product of MOD 37,36 for each sum of a product and a value, which is at most 36 + 35.
const PRODUCTS: [u8; 256] = products();
/// GB 32100 weights of the first seventeen characters.
const USCC_WEIGHTS: [u32; 17] = [1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28];
/// GB 11714 weights of the first eight characters of an organisation code.
const ORGANISATION_WEIGHTS: [u32; 8] = [3, 7, 9, 10, 5, 8, 4, 2];

/// Why a text is no identifier, or no part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// A USCC of another length.
    #[error("a unified social credit code has 18 characters, not {found}")]
    UsccLength {
        /// Characters found.
        found: usize,
    },
    /// A character that the USCC alphabet does not have at this place.
    #[error("{found:?} cannot stand at place {place} of a unified social credit code")]
    UsccCharacter {
        /// The character.
        found: char,
        /// Its place, from 1.
        place: usize,
    },
    /// The USCC's last character is not the one that GB 32100 computes.
    #[error("check character of the unified social credit code is {found}, {right} is right")]
    UsccCheck {
        /// The character found.
        found: char,
        /// The right character.
        right: char,
    },
    /// The ninth character of the organisation code inside a USCC is not the one that GB 11714 computes.
    #[error("check character of the organisation code is {found}, {right} is right")]
    OrganisationCheck {
        /// The character found.
        found: char,
        /// The right character.
        right: char,
    },
    /// A type code of another length.
    #[error("a license type code has 21 characters, not {found}")]
    TypeCodeLength {
        /// Characters found.
        found: usize,
    },
    /// A type code that does not end in three digits.
    #[error("a license type code ends in three digits")]
    TypeCodeNumber,
    /// An issuer that is neither a USCC nor a six-digit region code.
    #[error("an issuer code has 18 characters, or 6 digits in old identifiers")]
    Region,
    /// A six-digit issuer in an identifier that is to be made: it is read, never written.
    #[error("an identifier is not made for a six-digit issuer code")]
    RegionIssuer,
    /// An empty serial.
    #[error("a serial has 1 to 64 characters, not 0")]
    SerialEmpty,
    /// A serial that is too long.
    #[error("a serial has 1 to 64 characters, not {found}")]
    SerialTooLong {
        /// Characters found.
        found: usize,
    },
    /// A lower-case letter in a serial: the check alphabet has none, and folding would make two spellings of one
    /// license.
    #[error("lower-case {found:?} cannot stand in a serial")]
    SerialLowerCase {
        /// The first such character.
        found: char,
    },
    /// Another character outside 0-9A-Z in a serial.
    #[error("{found:?} cannot stand in a serial")]
    SerialCharacter {
        /// The first such character.
        found: char,
    },
    /// A version that is not 001 to 999.
    #[error("a version is 001 to 999")]
    Version,
    /// An identifier under another root.
    #[error("a license identifier begins with 1.2.156.3005.2.")]
    Root,
    /// An identifier with too few or too many parts.
    #[error("a license identifier has five parts behind its root")]
    Parts,
    /// An identifier that is too long to be one.
    #[error("a license identifier has at most {MAX_IDENTIFIER_LENGTH} characters, not {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// A character outside 0-9A-Z where a check character is computed.
    #[error("{found:?} has no value in MOD 37,36")]
    CheckAlphabet {
        /// The character.
        found: char,
    },
    /// The last part is not one character of 0-9A-Z.
    #[error("a license identifier ends in one check character of 0-9A-Z")]
    CheckForm,
    /// The check character is not the one that MOD 37,36 computes.
    #[error("check character of the license identifier is {found}, {right} is right")]
    Check {
        /// The character found.
        found: char,
        /// The right character.
        right: char,
    },
}

/// The value of each byte: its place in the alphabet.
const fn values(alphabet: &[u8]) -> [u8; 256] {
    let mut values = [NO_VALUE; 256];
    let mut place = 0;
    while place < alphabet.len() {
        values[alphabet[place] as usize] = place as u8;
        place += 1;
    }
    values
}

/// The remainder of 36 of each sum, 36 in place of 0, doubled, and of that the remainder of 37.
const fn products() -> [u8; 256] {
    let mut products = [0; 256];
    let mut sum = 1;
    while sum <= 36 + 35 {
        products[sum] = (((sum - 1) % 36 + 1) * 2 % 37) as u8;
        sum += 1;
    }
    products
}

impl IdentifierError {
    /// Whether the form is right and only a check character is wrong, which is what a typing error looks like.
    pub const fn is_check_error(self) -> bool {
        matches!(self, Self::UsccCheck { .. } | Self::OrganisationCheck { .. } | Self::Check { .. })
    }
}

/// Serialises a type as its `Display` text and reads it by `FromStr`, so that JSON cannot build it wrong either.
macro_rules! serde_as_string {
    ($($name:ty),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(crate) use serde_as_string;

serde_as_string!(Uscc, LicenseTypeCode, RegionCode6, IssuerCode, Serial, CertificateIdentifier);

/// A license identifier: `1.2.156.3005.2.<type>.<issuer>.<serial>.<version>.<check>` (GB/T 36904).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateIdentifier {
    type_code: LicenseTypeCode,
    issuer: IssuerCode,
    serial: Serial,
    version: u16,
    /// Follows from the others; computed once, where one is made.
    check: u8,
}

impl CertificateIdentifier {
    /// The identifier of a license to be issued.
    ///
    /// # Errors
    /// [`IdentifierError::Version`] unless the version is 1 to 999.
    pub fn new(
        type_code: LicenseTypeCode,
        issuer: Uscc,
        serial: Serial,
        version: u16,
    ) -> Result<Self, IdentifierError> {
        check_version(version)?;
        Ok(Self::checked(type_code, IssuerCode::Uscc(issuer), serial, version))
    }

    fn checked(type_code: LicenseTypeCode, issuer: IssuerCode, serial: Serial, version: u16) -> Self {
        let parts =
            [type_code.as_bytes(), issuer.as_bytes(), serial.as_str().as_bytes(), &version_digits(version)];
        let check = mod_37_36(&parts).expect("every part holds only 0-9A-Z");
        Self { type_code, issuer, serial, version, check }
    }

    /// The same license's identifier of another version.
    ///
    /// # Errors
    /// [`IdentifierError::Version`] unless the version is 1 to 999; [`IdentifierError::RegionIssuer`] for a
    /// six-digit issuer, because identifiers of that form are not made any more.
    pub fn with_version(&self, version: u16) -> Result<Self, IdentifierError> {
        let IssuerCode::Uscc(issuer) = self.issuer else { return Err(IdentifierError::RegionIssuer) };
        Self::new(self.type_code, issuer, self.serial.clone(), version)
    }

    /// The license type (证照类型代码).
    pub const fn type_code(&self) -> LicenseTypeCode {
        self.type_code
    }

    /// The issuing authority (颁发机构代码).
    pub const fn issuer(&self) -> &IssuerCode {
        &self.issuer
    }

    /// The serial (流水号).
    pub const fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The version (版本号), 1 to 999.
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// The check character (校验位): MOD 37,36 over type, issuer, serial and version.
    pub const fn check_character(&self) -> char {
        self.check as char
    }
}

impl FromStr for CertificateIdentifier {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        // The bound comes first, so that nothing below sees a long input.
        if text.len() > MAX_IDENTIFIER_LENGTH {
            return Err(IdentifierError::TooLong { found: text.len() });
        }
        let rest =
            text.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('.')).ok_or(IdentifierError::Root)?;
        let (type_code, rest) = split_at_dot(rest)?;
        let (issuer, rest) = split_at_dot(rest)?;
        let (serial, rest) = split_at_dot(rest)?;
        let (version, check) = split_at_dot(rest)?;
        if split_at_dot(check).is_ok() {
            return Err(IdentifierError::Parts);
        }
        let identifier =
            Self::checked(type_code.parse()?, issuer.parse()?, serial.parse()?, parse_version(version)?);
        let &[found] = check.as_bytes() else { return Err(IdentifierError::CheckForm) };
        check_value(found).map_err(|_| IdentifierError::CheckForm)?;
        let (found, right) = (char::from(found), identifier.check_character());
        if found == right { Ok(identifier) } else { Err(IdentifierError::Check { found, right }) }
    }
}

impl fmt::Display for CertificateIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Identifiers are printed for every use: pieces cost a third of a format string.
        let version = version_digits(self.version).map(char::from);
        for part in [ROOT, self.type_code.as_str(), self.issuer.as_str(), self.serial.as_str()] {
            f.write_str(part)?;
            f.write_char('.')?;
        }
        for digit in version {
            f.write_char(digit)?;
        }
        f.write_char('.')?;
        f.write_char(self.check_character())
    }
}

/// The text before the first dot, and the text behind it.
fn split_at_dot(text: &str) -> Result<(&str, &str), IdentifierError> {
    // The bytes are looked at one by one: parts are too short for the search of `split`.
    let dot = text.bytes().position(|byte| byte == b'.').ok_or(IdentifierError::Parts)?;
    Ok((&text[..dot], &text[dot + 1..]))
}

fn check_version(version: u16) -> Result<(), IdentifierError> {
    if (1..=MAX_VERSION).contains(&version) { Ok(()) } else { Err(IdentifierError::Version) }
}

fn parse_version(text: &str) -> Result<u16, IdentifierError> {
    if text.len() != 3 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(IdentifierError::Version);
    }
    let version = text.bytes().fold(0, |sum, byte| sum * 10 + u16::from(byte - b'0'));
    check_version(version)?;
    Ok(version)
}

fn version_digits(version: u16) -> [u8; 3] {
    [version / 100, version / 10 % 10, version % 10].map(digit)
}

fn digit(number: u16) -> u8 {
    b'0' + u8::try_from(number % 10).expect("a decimal digit")
}

/// The check character of ISO/IEC 7064 MOD 37,36 (hybrid system) over ASCII characters of 0-9A-Z, given in parts.
///
/// # Errors
/// [`IdentifierError::CheckAlphabet`] for a byte that is not 0-9A-Z.
pub fn mod_37_36(parts: &[&[u8]]) -> Result<u8, IdentifierError> {
    let mut product: u8 = 36;
    for part in parts {
        for byte in *part {
            product = PRODUCTS[usize::from(product + check_value(*byte)?)];
        }
    }
    Ok(CHECK_ALPHABET[usize::from((37 - product) % 36)])
}

/// The value of a character: 0-9 are 0 to 9, A-Z are 10 to 35 (ISO/IEC 7064, and GB 11714).
fn check_value(byte: u8) -> Result<u8, IdentifierError> {
    match CHECK_VALUES[usize::from(byte)] {
        NO_VALUE => Err(IdentifierError::CheckAlphabet { found: char::from(byte) }),
        value => Ok(value),
    }
}

/// A unified social credit code (统一社会信用代码, GB 32100): 18 characters with its own check character and
/// that of the organisation code (GB 11714) inside it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uscc([u8; USCC_LENGTH]);

impl Uscc {
    /// The characters as ASCII bytes.
    pub const fn as_bytes(&self) -> &[u8; USCC_LENGTH] {
        &self.0
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

impl FromStr for Uscc {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let bytes: &[u8; USCC_LENGTH] = text
            .as_bytes()
            .try_into()
            .map_err(|_| IdentifierError::UsccLength { found: text.chars().count() })?;
        // Characters 3 to 8 are a region code (GB/T 2260), digits only.
        let fits = |(place, byte): (usize, &u8)| {
            if (2..8).contains(&place) { byte.is_ascii_digit() } else { uscc_value(*byte).is_some() }
        };
        if let Some(place) = bytes.iter().enumerate().position(|character| !fits(character)) {
            // All bytes before are ASCII, so the byte's place is the character's.
            let found = text.chars().nth(place).unwrap_or_default();
            return Err(IdentifierError::UsccCharacter { found, place: place + 1 });
        }
        let [body @ .., check] = bytes;
        let (found, right) = (char::from(*check), char::from(uscc_check(body)));
        if found != right {
            return Err(IdentifierError::UsccCheck { found, right });
        }
        let [_, _, _, _, _, _, _, _, organisation @ .., check] = body;
        let (found, right) = (char::from(*check), char::from(organisation_check(organisation)));
        if found != right {
            return Err(IdentifierError::OrganisationCheck { found, right });
        }
        Ok(Self(*bytes))
    }
}

impl fmt::Display for Uscc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Uscc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uscc({self})")
    }
}

fn uscc_value(byte: u8) -> Option<u32> {
    let value = USCC_VALUES[usize::from(byte)];
    (value != NO_VALUE).then_some(value.into())
}

/// The last character of a USCC (GB 32100): (31 − Σ weight × value mod 31) mod 31. A character outside the
/// alphabet counts as 0; callers have checked the alphabet.
pub(crate) fn uscc_check(body: &[u8; 17]) -> u8 {
    let sum: u32 =
        body.iter().zip(USCC_WEIGHTS).map(|(&byte, weight)| uscc_value(byte).unwrap_or(0) * weight).sum();
    let index = usize::try_from((31 - sum % 31) % 31).expect("less than 31");
    USCC_ALPHABET[index]
}

/// The ninth character of an organisation code (GB 11714): 11 − Σ weight × value mod 11, 10 as X, 11 as 0.
pub(crate) fn organisation_check(body: &[u8; 8]) -> u8 {
    let sum: u32 = body
        .iter()
        .zip(ORGANISATION_WEIGHTS)
        .map(|(&byte, weight)| u32::from(check_value(byte).unwrap_or(0)) * weight)
        .sum();
    match 11 - sum % 11 {
        11 => b'0',
        10 => b'X',
        check => b'0' + u8::try_from(check).expect("a decimal digit"),
    }
}

/// A license type code (证照类型代码): the USCC of the body that defines the type, and three digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LicenseTypeCode {
    authority: Uscc,
    bytes: [u8; TYPE_CODE_LENGTH],
}

impl LicenseTypeCode {
    /// The characters as ASCII bytes.
    pub const fn as_bytes(&self) -> &[u8; TYPE_CODE_LENGTH] {
        &self.bytes
    }

    /// The 21 characters.
    pub fn as_str(&self) -> &str {
        ascii(&self.bytes)
    }

    /// The body that defines the type (证照定义机构).
    pub const fn authority(&self) -> Uscc {
        self.authority
    }
}

impl FromStr for LicenseTypeCode {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let length = || IdentifierError::TypeCodeLength { found: text.chars().count() };
        let bytes: [u8; TYPE_CODE_LENGTH] = text.as_bytes().try_into().map_err(|_| length())?;
        let (authority, number) = text.split_at_checked(USCC_LENGTH).ok_or_else(length)?;
        let authority = authority.parse()?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(IdentifierError::TypeCodeNumber);
        }
        Ok(Self { authority, bytes })
    }
}

impl fmt::Display for LicenseTypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for LicenseTypeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LicenseTypeCode({self})")
    }
}

/// A region code of six digits (GB/T 2260), which old identifiers carry in place of the issuer's USCC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionCode6([u8; 6]);

impl RegionCode6 {
    /// The six digits.
    pub fn as_str(&self) -> &str {
        ascii(&self.0)
    }
}

impl FromStr for RegionCode6 {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        let bytes: [u8; 6] = text.as_bytes().try_into().map_err(|_| IdentifierError::Region)?;
        if bytes.iter().all(u8::is_ascii_digit) { Ok(Self(bytes)) } else { Err(IdentifierError::Region) }
    }
}

impl fmt::Display for RegionCode6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RegionCode6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionCode6({self})")
    }
}

/// The issuer of a license (颁发机构代码).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IssuerCode {
    /// The issuing authority's USCC.
    Uscc(Uscc),
    /// A region code, as some systems write it: read, never produced.
    Region(RegionCode6),
}

impl IssuerCode {
    /// The characters as ASCII bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Uscc(uscc) => &uscc.0,
            Self::Region(region) => &region.0,
        }
    }

    /// The characters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Uscc(uscc) => uscc.as_str(),
            Self::Region(region) => region.as_str(),
        }
    }

    /// The issuing authority's USCC; `None` for a region code.
    pub const fn uscc(&self) -> Option<Uscc> {
        match self {
            Self::Uscc(uscc) => Some(*uscc),
            Self::Region(_) => None,
        }
    }
}

impl FromStr for IssuerCode {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        match text.len() {
            6 => text.parse().map(Self::Region),
            USCC_LENGTH => text.parse().map(Self::Uscc),
            _ => Err(IdentifierError::Region),
        }
    }
}

impl fmt::Display for IssuerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A license's serial (流水号): 1 to 64 characters of 0-9A-Z, chosen by the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<str>);

impl Serial {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, IdentifierError> {
        if text.is_empty() {
            return Err(IdentifierError::SerialEmpty);
        }
        if text.len() > MAX_SERIAL_LENGTH {
            return Err(IdentifierError::SerialTooLong { found: text.chars().count() });
        }
        let misfit = |byte: u8| CHECK_VALUES[usize::from(byte)] == NO_VALUE;
        let Some(place) = text.bytes().position(misfit) else { return Ok(Self(text.into())) };
        // All bytes before are ASCII, so the byte's place is the character's.
        match text.chars().nth(place).unwrap_or_default() {
            found if found.is_lowercase() => Err(IdentifierError::SerialLowerCase { found }),
            found => Err(IdentifierError::SerialCharacter { found }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn ascii(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("parsed from ASCII characters only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Identifiers of real systems and of ministries' specifications.
    const GOOD: [&str; 5] = [
        "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U",
        "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.002.S",
        "1.2.156.3005.2.11100000000013338W032.11220000013544541J.2430599.001.F",
        "1.2.156.3005.2.11100000000013338W009.11330105002500287C.2025052201.002.0",
        "1.2.156.3005.2.11100000MB03271699022.340100.000000016.001.9",
    ];
    /// A sample of a province's interface description, whose check character was made up.
    const SHANDONG: &str =
        "1.2.156.3005.2.11100000000013661B006.113700000045046442.209FA4E88F9E4C878F3E9BED2CE7EA49.001.M";
    const GOOD_USCC: [&str; 5] = [
        "91350100M000100Y43",
        "11100000000013338W",
        "11100000MB0341032Y",
        "11100000MB03271699",
        "11430000006122244L",
    ];

    fn parse(text: &str) -> Result<CertificateIdentifier, IdentifierError> {
        text.parse()
    }

    #[test]
    fn prints_the_golden_identifiers_back() {
        for text in GOOD {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn reads_the_parts() {
        let identifier = parse(GOOD[1]).unwrap();
        assert_eq!(identifier.type_code().as_str(), "11100000000013338W011");
        assert_eq!(identifier.type_code().authority().as_str(), "11100000000013338W");
        assert_eq!(identifier.issuer().uscc().unwrap().as_str(), "11430000006122244L");
        assert_eq!(identifier.serial().as_str(), "20230000403");
        assert_eq!((identifier.version(), identifier.check_character()), (2, 'S'));
        let old = parse(GOOD[4]).unwrap();
        assert_eq!((old.issuer().as_str(), old.issuer().uscc()), ("340100", None));
    }

    #[test]
    fn refuses_a_wrong_check_character_and_names_the_right_one() {
        let error = parse(SHANDONG).unwrap_err();
        assert_eq!(error, IdentifierError::Check { found: 'M', right: 'D' });
        assert!(error.is_check_error() && error.to_string().contains("D is right"), "{error}");
        let corrected = SHANDONG.strip_suffix('M').unwrap().to_owned() + "D";
        assert_eq!(parse(&corrected).unwrap().to_string(), corrected);
    }

    #[test]
    fn makes_versions() {
        let first = parse(GOOD[0]).unwrap();
        assert_eq!(first.with_version(2).unwrap().to_string(), GOOD[1]);
        assert_eq!(first.with_version(999).unwrap().version(), 999);
        for version in [0, 1000, u16::MAX] {
            assert_eq!(first.with_version(version), Err(IdentifierError::Version));
        }
        assert_eq!(parse(GOOD[4]).unwrap().with_version(2), Err(IdentifierError::RegionIssuer));
    }

    #[test]
    fn refuses_other_forms() {
        use IdentifierError as E;
        let (type_code, issuer) = ("11100000000013338W011", "11430000006122244L");
        let cases = [
            (String::new(), E::Root),
            ("1.2.156.3005.2".into(), E::Root),
            (GOOD[0].replacen("3005.2.", "3005.3.", 1), E::Root),
            (format!(" {}", GOOD[0]), E::Root),
            (format!("{ROOT}."), E::Parts),
            (format!("{ROOT}....."), E::TypeCodeLength { found: 0 }),
            (format!("{ROOT}.{type_code}.{issuer}.1.001"), E::Parts),
            (format!("{}.U", GOOD[0]), E::Parts),
            (format!("{ROOT}.{type_code}.{issuer}..001.U"), E::SerialEmpty),
            (format!("{ROOT}.{type_code}.{issuer}.1.01.U"), E::Version),
            (format!("{ROOT}.{type_code}.{issuer}.1.0001.U"), E::Version),
            (format!("{ROOT}.{type_code}.{issuer}.1.000.U"), E::Version),
            (format!("{ROOT}.{type_code}.{issuer}.1.+01.U"), E::Version),
            (format!("{ROOT}.{type_code}.{issuer}.1.001."), E::CheckForm),
            (format!("{ROOT}.{type_code}.{issuer}.1.001.u"), E::CheckForm),
            (format!("{ROOT}.{type_code}.{issuer}.1.001.UU"), E::CheckForm),
            (format!("{ROOT}.{type_code}.34010.1.001.U"), E::Region),
            (format!("{ROOT}.{type_code}.34010A.1.001.U"), E::Region),
            (format!("{ROOT}.{type_code}.3401００.1.001.U"), E::Region),
            (format!("{ROOT}.11100000000013338W01A.{issuer}.1.001.U"), E::TypeCodeNumber),
            (format!("{ROOT}.11100000000013338W01.{issuer}.1.001.U"), E::TypeCodeLength { found: 20 }),
        ];
        for (text, error) in cases {
            assert_eq!(parse(&text), Err(error), "{text}");
        }
        let long = format!("{ROOT}.{type_code}.{issuer}.{}.001.U", "1".repeat(65));
        assert_eq!(parse(&long), Err(E::TooLong { found: long.len() }));
        assert_eq!(parse(&"9".repeat(1 << 20)), Err(E::TooLong { found: 1 << 20 }));
    }

    #[test]
    fn the_longest_identifier_is_as_long_as_the_bound() {
        let parts = parse(GOOD[0]).unwrap();
        let serial = "Z".repeat(MAX_SERIAL_LENGTH).parse().unwrap();
        let longest =
            CertificateIdentifier::new(parts.type_code(), parts.issuer().uscc().unwrap(), serial, 999)
                .unwrap();
        assert_eq!(longest.to_string().len(), MAX_IDENTIFIER_LENGTH);
        assert_eq!(parse(&longest.to_string()), Ok(longest));
    }

    #[test]
    fn serials() {
        use IdentifierError as E;
        assert_eq!("".parse::<Serial>(), Err(E::SerialEmpty));
        assert_eq!("a1".parse::<Serial>(), Err(E::SerialLowerCase { found: 'a' }));
        assert_eq!("1-2".parse::<Serial>(), Err(E::SerialCharacter { found: '-' }));
        assert_eq!("证".parse::<Serial>(), Err(E::SerialCharacter { found: '证' }));
        assert_eq!("１".parse::<Serial>(), Err(E::SerialCharacter { found: '１' }));
        assert_eq!("A".repeat(65).parse::<Serial>(), Err(E::SerialTooLong { found: 65 }));
        assert_eq!("A".repeat(64).parse::<Serial>().unwrap().as_str(), "A".repeat(64));
    }

    #[test]
    fn usccs() {
        use IdentifierError as E;
        for text in GOOD_USCC {
            let uscc: Uscc = text.parse().unwrap();
            assert_eq!(
                (uscc.as_str(), &uscc.as_bytes()[..], uscc.to_string()),
                (text, text.as_bytes(), text.into())
            );
        }
        let uscc = |text: &str| text.parse::<Uscc>();
        assert_eq!(uscc("91350100M000100Y4A"), Err(E::UsccCheck { found: 'A', right: '3' }));
        assert_eq!(uscc("91350100M000100Y4"), Err(E::UsccLength { found: 17 }));
        assert_eq!(uscc(""), Err(E::UsccLength { found: 0 }));
        assert_eq!(uscc("91350100m000100Y43"), Err(E::UsccCharacter { found: 'm', place: 9 }));
        assert_eq!(uscc("91350100I000100Y43"), Err(E::UsccCharacter { found: 'I', place: 9 }));
        assert_eq!(uscc("913501A0M000100Y43"), Err(E::UsccCharacter { found: 'A', place: 7 }));
        assert_eq!(uscc("证证证证证证"), Err(E::UsccCharacter { found: '证', place: 1 }));
    }

    #[test]
    fn refuses_a_wrong_organisation_code_under_a_right_last_character() {
        let body = *b"91350100M000100Y5";
        let text = String::from_utf8([&body[..], &[uscc_check(&body)]].concat()).unwrap();
        let error = text.parse::<Uscc>().unwrap_err();
        assert_eq!(error, IdentifierError::OrganisationCheck { found: '5', right: '4' });
        assert!(error.is_check_error());
    }

    #[test]
    fn mod_37_36_refuses_other_alphabets() {
        for byte in [b'a', b'.', b' ', 0, 0xff] {
            let found = char::from(byte);
            assert_eq!(mod_37_36(&[&[byte]]), Err(IdentifierError::CheckAlphabet { found }));
        }
    }

    #[test]
    fn is_a_string_in_json() {
        let json = format!("\"{}\"", GOOD[0]);
        let identifier: CertificateIdentifier = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&identifier).unwrap(), json);
        let refused = serde_json::from_str::<CertificateIdentifier>(&format!("\"{SHANDONG}\"")).unwrap_err();
        assert!(refused.to_string().contains("D is right"));
        assert!(serde_json::from_str::<Uscc>("\"91350100M000100Y4A\"").is_err());
        assert!(serde_json::from_str::<Serial>("\"a\"").is_err());
        assert!(serde_json::from_str::<Serial>("1").is_err());
    }

    #[test]
    fn errors_do_not_echo_the_input() {
        let long = "1".repeat(10_000);
        for text in [long.clone(), format!("{ROOT}.{long}"), format!("\u{1b}[31m{long}")] {
            let messages = [
                text.parse::<CertificateIdentifier>().unwrap_err().to_string(),
                text.parse::<Uscc>().unwrap_err().to_string(),
                text.parse::<LicenseTypeCode>().unwrap_err().to_string(),
                text.parse::<IssuerCode>().unwrap_err().to_string(),
                text.parse::<Serial>().unwrap_err().to_string(),
            ];
            for message in messages {
                assert!(message.len() < 120 && !message.contains('\u{1b}'), "{message}");
            }
        }
        assert!(!"\u{1b}".parse::<Serial>().unwrap_err().to_string().contains('\u{1b}'));
    }

    fn identifiers() -> impl Strategy<Value = CertificateIdentifier> {
        let issuers = proptest::sample::select(&GOOD_USCC[..]);
        (issuers.clone(), 0..1000_u16, issuers, "[0-9A-Z]{1,64}", 1..=MAX_VERSION).prop_map(
            |(authority, number, issuer, serial, version)| {
                let type_code = format!("{authority}{number:03}").parse().unwrap();
                let (issuer, serial) = (issuer.parse().unwrap(), serial.parse().unwrap());
                CertificateIdentifier::new(type_code, issuer, serial, version).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn prints_what_it_parses(identifier in identifiers()) {
            let text = identifier.to_string();
            prop_assert_eq!(parse(&text), Ok(identifier));
        }

        #[test]
        fn refuses_any_changed_character(
            identifier in identifiers(), place in any::<proptest::sample::Index>(), other in "[0-9A-Za-z.]",
        ) {
            let text = identifier.to_string();
            let mut changed = text.clone();
            let place = place.index(text.len());
            changed.replace_range(place..=place, &other);
            prop_assume!(changed != text);
            prop_assert!(parse(&changed).is_err(), "{}", changed);
        }

        #[test]
        fn refuses_neighbours_swapped_in_a_uscc(uscc in proptest::sample::select(&GOOD_USCC[..]), at in 0..17_usize) {
            let mut bytes = uscc.as_bytes().to_vec();
            bytes.swap(at, at + 1);
            let swapped = String::from_utf8(bytes).unwrap();
            prop_assume!(swapped != uscc);
            prop_assert!(swapped.parse::<Uscc>().is_err());
        }

        #[test]
        fn never_panics(text in "\\PC{0,140}", tail in "[0-9A-Z.]{0,120}") {
            let _ = (parse(&text), text.parse::<Uscc>(), text.parse::<LicenseTypeCode>(), text.parse::<Serial>());
            let _ = parse(&format!("{ROOT}.{tail}"));
        }
    }
}
