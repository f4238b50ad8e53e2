//! PEM (RFC 7468), read strictly: each section of a text is given to the caller, or the text is refused with the line.
//!
//! Readers that skip what they do not recognise lose a section behind a byte order mark or a blank, and with it perhaps
//! the list of those who are revoked.
//!
//! Pure functions; nothing to lose.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a revocation list.
pub const REVOCATION_LIST: &str = "X509 CRL";
/// Labels of unencrypted private keys: PKCS#8, SEC 1, PKCS#1.
pub const PRIVATE_KEYS: [&str; 3] = ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"];

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Text between sections is free (RFC 7468, 5.2), except for a line that is so long and all base64: the section that it
/// is of has lost its first line.
const BASE64_LINE: usize = 40;
/// Longest label that is repeated in an error.
const MAX_LABEL: usize = 40;

/// Why a text is not used. Never holds a byte of a section.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A line cannot be read, or begins a section that has no place there.
    #[error("line {line}: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// The fault.
        why: String,
    },
    /// There is no section of the wanted kind.
    #[error("holds no {0} in PEM")]
    None(&'static str),
}

impl PemError {
    /// An error of a line.
    pub fn line(line: usize, why: impl Into<String>) -> Self {
        Self::Line { line, why: why.into() }
    }
}

/// One section of a text.
pub struct Section<'a> {
    /// The line that begins it, from 1.
    pub line: usize,
    /// The label that it bears, such as [`CERTIFICATE`].
    pub label: &'a str,
    /// Its content; may be secret.
    pub der: Zeroizing<Vec<u8>>,
}

/// All sections of a text, in their order.
///
/// # Errors
/// [`PemError::Line`]: something may be a section and is none that can be read.
pub fn sections(text: &str) -> Result<Vec<Section<'_>>, PemError> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, Zeroizing<String>)> = None;
    for (line, number) in text.lines().zip(1..) {
        let bad = |why: &str| PemError::line(number, why);
        if line.contains('\u{feff}') {
            return Err(bad("holds a byte order mark (U+FEFF): save the file as UTF-8 without one"));
        }
        let line = line.trim_end_matches([' ', '\t', '\r']);
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(bad("holds a control character"));
        }
        match &mut open {
            None => {
                if let Some(label) = label(line, BEGIN) {
                    // Room at once: a buffer that grows leaves copies behind that nothing wipes.
                    let rest = text.len().min(64 << 10);
                    open = Some((number, label, Zeroizing::new(String::with_capacity(rest))));
                } else if is_nearly_a_boundary(line) {
                    return Err(bad("is nearly the first or last line of a section, and neither"));
                } else if line.len() >= BASE64_LINE && line.bytes().all(is_base64) {
                    return Err(bad(
                        "base64 outside of a section: its BEGIN line is missing or cannot be read",
                    ));
                }
            }
            Some((begun, name, content)) => {
                if label(line, END) == Some(*name) {
                    let der = BASE64.decode(content.as_bytes()).ok().filter(|der| !der.is_empty());
                    let der = der.ok_or_else(|| {
                        PemError::line(*begun, format!("the content of this {} is not base64", shown(name)))
                    })?;
                    found.push(Section { line: *begun, label: name, der: Zeroizing::new(der) });
                    open = None;
                } else if line.contains(DASHES) {
                    let why =
                        format!("the {} that begins at line {begun} does not end before this", shown(name));
                    return Err(bad(&why));
                } else if line.contains(':') {
                    let why =
                        format!("the {} has headers, as encrypted keys do: it cannot be used", shown(name));
                    return Err(bad(&why));
                } else {
                    content.push_str(line.trim_start_matches([' ', '\t']));
                }
            }
        }
    }
    match open {
        Some((begun, name, _)) => {
            Err(PemError::line(begun, format!("the {} that begins here does not end", shown(name))))
        }
        None => Ok(found),
    }
}

/// All sections of a text, which must be of one kind.
///
/// # Errors
/// [`PemError`]: also a section of another kind, by its line, or no section at all.
pub fn all<'a>(text: &'a str, what: &'static str, labels: &[&str]) -> Result<Vec<Section<'a>>, PemError> {
    let found = sections(text)?;
    if let Some(other) = found.iter().find(|section| !labels.contains(&section.label)) {
        return Err(other.unexpected(what));
    }
    if found.is_empty() { Err(PemError::None(what)) } else { Ok(found) }
}

/// The one section of a text.
///
/// # Errors
/// [`PemError`]: also a second section, by its line.
pub fn one<'a>(text: &'a str, what: &'static str, labels: &[&str]) -> Result<Section<'a>, PemError> {
    let mut found = all(text, what, labels)?.into_iter();
    let first = found.next().ok_or(PemError::None(what))?;
    match found.next() {
        Some(second) => {
            Err(PemError::line(second.line, format!("a second {what}: nothing would use it; take it out")))
        }
        None => Ok(first),
    }
}

impl Section<'_> {
    /// The error of a section that has no place where it stands.
    pub fn unexpected(&self, wanted: &'static str) -> PemError {
        let why =
            format!("a section {} among what should be {wanted}: nothing would use it", shown(self.label));
        PemError::line(self.line, why)
    }
}

/// The label of a whole boundary line.
fn label<'a>(line: &'a str, begins: &str) -> Option<&'a str> {
    let label = line.strip_prefix(begins)?.strip_suffix(DASHES)?;
    (!label.is_empty() && !label.contains("--")).then_some(label)
}

fn is_nearly_a_boundary(line: &str) -> bool {
    let named = ["BEGIN ", "END "].iter().any(|word| line.contains(word));
    line.contains(DASHES) && !line.bytes().all(|byte| byte == b'-') || named && line.contains("--")
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}

/// A label as an error shows it.
fn shown(label: &str) -> String {
    label.chars().take(MAX_LABEL).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(label: &str, content: &[u8]) -> String {
        let body = BASE64.encode(content);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn every_section_is_given_with_its_line_and_text_between_is_free() {
        let (one, two) = (section(CERTIFICATE, &[1; 100]), section(REVOCATION_LIST, &[2; 100]));
        let between = "subject=CN = 测试\n---\n\n     Serial Number: 4e:5f\n# BEGIN of the second one\n";
        let text = format!("Bag Attributes\n{one}{between}{two}\n \n");
        for text in [text.clone(), text.replace('\n', "\r\n"), text.replace("-----\n", "----- \t\n")] {
            let found = sections(&text).unwrap();
            let found: Vec<_> = found.iter().map(|one| (one.line, one.label, one.der.len())).collect();
            assert_eq!(found, [(2, CERTIFICATE, 100), (12, REVOCATION_LIST, 100)]);
        }
    }

    #[test]
    fn nothing_that_may_be_a_section_is_passed_over() {
        let one = section(CERTIFICATE, &[1; 100]);
        let body = one.lines().nth(1).unwrap();
        for (text, line) in [
            (format!("\u{feff}{one}"), 1),
            (format!("{one}\u{feff}{one}"), 6),
            (format!("{one}  {one}"), 6),
            (format!("{one}\u{a0}{one}"), 6),
            (format!("{one}-----begin CERTIFICATE-----\n"), 6),
            (format!("{one}----BEGIN CERTIFICATE-----\n{body}\n"), 6),
            (format!("{one}–––––BEGIN CERTIFICATE–––––\n{body}\n"), 7),
            (format!("{one}-----BEGIN CERTIFICATE----- \u{200b}\n{body}\n"), 6),
            (one.replace("-----END CERTIFICATE-----", "-----END CERTIFICATE----- junk"), 5),
            (one.replace("-----END CERTIFICATE-----", "-----END X509 CRL-----"), 5),
            (one.replace("-----END CERTIFICATE-----\n", &one), 5),
            (one.replace("-----BEGIN CERTIFICATE-----\n", ""), 1),
            (one.replace("-----END CERTIFICATE-----\n", ""), 1),
            (one.replace("AQE", "A*E"), 1),
            (format!("{one}-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"), 6),
            (format!("{one}-----END CERTIFICATE-----\n"), 6),
            (format!("{one}-----BEGIN -----\n{body}\n-----END -----\n"), 6),
            (one.replace("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nProc-Type: 4\n"), 2),
            (one.replace('\n', "\r"), 1),
            (format!("{one}-\0-\0-\0-\0-\0B\0E\0G\0I\0N\0"), 6),
        ] {
            let error = sections(&text).map(|found| found.len()).unwrap_err();
            assert!(matches!(&error, PemError::Line { line: at, .. } if *at == line), "{error}\n{text}");
            assert!(!error.to_string().contains(body), "{error}");
        }
    }

    #[test]
    fn another_kind_and_a_second_one_are_refused_by_line() {
        let (certificate, key) = (section(CERTIFICATE, &[1; 10]), section("PRIVATE KEY", &[2; 10]));
        assert_eq!(all(&certificate.repeat(2), "certificate", &[CERTIFICATE]).unwrap().len(), 2);
        let refused =
            |text: &str| one(text, "certificate", &[CERTIFICATE]).map(|_| ()).unwrap_err().to_string();
        assert!(refused(&format!("{certificate}{key}")).starts_with("line 4: a section PRIVATE KEY"));
        assert!(refused(&certificate.repeat(2)).starts_with("line 4: a second certificate"));
        assert_eq!(refused("no section\n"), "holds no certificate in PEM");
        assert_eq!(&**one(&certificate, "certificate", &[CERTIFICATE]).unwrap().der, [1; 10]);
    }
}
