//! C2SP policies (<https://c2sp.org/tlog-policy>): which logs are taken and which witnesses must have seen a checkpoint.
//!
//! Names are bytes that mean something inside the file alone. Keys are counted, not names.
//!
//! Pure functions; nothing to lose.

use crate::note::{VerifierKey, WitnessKey};
use std::collections::{BTreeMap, BTreeSet};

/// Longest policy that is read, in bytes.
pub const MAX_POLICY_BYTES: usize = 1 << 20;

/// The name of the quorum that asks for no witness.
const NONE: &[u8] = b"none";

/// Why a policy is refused; `line` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`MAX_POLICY_BYTES`].
    #[error("the policy is too long")]
    TooLong,
    /// A control character other than tab and newline, or a last line without an end.
    #[error("the policy is not lines of text")]
    NotText,
    /// A line of no known form.
    #[error("line {line} of the policy is malformed")]
    Malformed {
        /// Which line.
        line: usize,
    },
    /// A key that is malformed, or of a signature type that this verifier does not know.
    #[error("line {line} of the policy holds no key that can be read")]
    Key {
        /// Which line.
        line: usize,
    },
    /// A key, a name or the quorum stands twice.
    #[error("line {line} of the policy says something a second time")]
    Duplicate {
        /// Which line.
        line: usize,
    },
    /// A name that no line before this one defines.
    #[error("line {line} of the policy names what no line before it defines")]
    Undefined {
        /// Which line.
        line: usize,
    },
    /// There is no quorum.
    #[error("the policy has no quorum")]
    NoQuorum,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    witnesses: Vec<WitnessKey>,
    /// Witnesses and groups in the order of their lines: a group only names what stands before it.
    rules: Vec<Rule>,
    /// Position in `rules`; `None` asks for nobody.
    quorum: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// Position in `witnesses`.
    Witness(usize),
    /// At least `least` of these `rules`.
    Group { least: usize, members: Vec<usize> },
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`PolicyError`]
    pub fn parse(file: &[u8]) -> Result<Self, PolicyError> {
        if file.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong);
        }
        let allowed = |byte: &u8| matches!(byte, b'\t' | b'\n' | b' '..=b'~' | 0x80..);
        let lines = match file.strip_suffix(b"\n") {
            Some(lines) if lines.iter().all(allowed) => lines,
            _ => return Err(PolicyError::NotText),
        };
        let mut reader = Reader::default();
        for (line, text) in (1..).zip(lines.split(|byte| *byte == b'\n')) {
            let items: Vec<&[u8]> =
                text.split(|byte| matches!(byte, b' ' | b'\t')).filter(|item| !item.is_empty()).collect();
            match items.as_slice() {
                [] => {}
                [first, ..] if first.starts_with(b"#") => {}
                items => reader.line(line, items)?,
            }
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self { logs: reader.logs, witnesses: reader.witnesses, rules: reader.rules, quorum })
    }

    /// The logs that are taken; when empty, the caller knows which.
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// Every witness that is named, in the order of the file.
    pub fn witnesses(&self) -> &[WitnessKey] {
        &self.witnesses
    }

    /// Whether the witnesses for which `cosigned` holds are enough. One whose cosignatures cannot be checked never counts.
    pub fn is_satisfied(&self, cosigned: impl Fn(&WitnessKey) -> bool) -> bool {
        let Some(quorum) = self.quorum else { return true };
        let mut holds: Vec<bool> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let held = match rule {
                Rule::Witness(at) => self.witnesses.get(*at).is_some_and(&cosigned),
                Rule::Group { least, members } => {
                    members.iter().filter(|member| holds.get(**member) == Some(&true)).count() >= *least
                }
            };
            holds.push(held);
        }
        holds.get(quorum) == Some(&true)
    }
}

/// The content of the lines so far.
#[derive(Default)]
struct Reader {
    logs: Vec<VerifierKey>,
    witnesses: Vec<WitnessKey>,
    rules: Vec<Rule>,
    /// Name to position in `rules`.
    names: BTreeMap<Vec<u8>, usize>,
    /// Rules that are a member of a group: each may be one once.
    members: BTreeSet<usize>,
    quorum: Option<Option<usize>>,
}

impl Reader {
    fn line(&mut self, line: usize, items: &[&[u8]]) -> Result<(), PolicyError> {
        match items {
            [b"log", key] | [b"log", key, _] => {
                let key: VerifierKey = parse_key(key).ok_or(PolicyError::Key { line })?;
                if self.logs.iter().any(|log| log.key() == key.key()) {
                    return Err(PolicyError::Duplicate { line });
                }
                self.logs.push(key);
            }
            [b"witness", name, key] | [b"witness", name, key, _] => {
                let key: WitnessKey = parse_key(key).ok_or(PolicyError::Key { line })?;
                if self.witnesses.iter().any(|witness| witness.bytes() == key.bytes()) {
                    return Err(PolicyError::Duplicate { line });
                }
                self.define(line, name, Rule::Witness(self.witnesses.len()))?;
                self.witnesses.push(key);
            }
            [b"group", name, least, names @ ..] if !names.is_empty() => {
                let mut members = Vec::with_capacity(names.len());
                for name in names {
                    let member = *self.names.get(*name).ok_or(PolicyError::Undefined { line })?;
                    if !self.members.insert(member) {
                        return Err(PolicyError::Duplicate { line });
                    }
                    members.push(member);
                }
                let least = match *least {
                    b"any" => 1,
                    b"all" => members.len(),
                    number => std::str::from_utf8(number)
                        .ok()
                        .and_then(crate::checkpoint::decimal)
                        .and_then(|number| usize::try_from(number).ok())
                        .filter(|number| (1..=members.len()).contains(number))
                        .ok_or(PolicyError::Malformed { line })?,
                };
                self.define(line, name, Rule::Group { least, members })?;
            }
            [b"quorum", name] => {
                if self.quorum.is_some() {
                    return Err(PolicyError::Duplicate { line });
                }
                self.quorum = Some(match self.names.get(*name) {
                    Some(rule) => Some(*rule),
                    None if *name == NONE => None,
                    None => return Err(PolicyError::Undefined { line }),
                });
            }
            _ => return Err(PolicyError::Malformed { line }),
        }
        Ok(())
    }

    fn define(&mut self, line: usize, name: &[u8], rule: Rule) -> Result<(), PolicyError> {
        if name == NONE {
            return Err(PolicyError::Malformed { line });
        }
        if self.names.insert(name.to_vec(), self.rules.len()).is_some() {
            return Err(PolicyError::Duplicate { line });
        }
        self.rules.push(rule);
        Ok(())
    }
}

fn parse_key<K: std::str::FromStr>(text: &[u8]) -> Option<K> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::CosignerKey;

    fn cosigner(seed: u8) -> WitnessKey {
        CosignerKey::ed25519(&format!("w{seed}.example"), &[seed; 32]).unwrap().into()
    }

    fn log(seed: u8) -> VerifierKey {
        VerifierKey::ed25519("log.example/1", &[seed; 32]).unwrap()
    }

    /// The specification's example: two of three X and any of three Y.
    fn example() -> String {
        let mut text = format!("# example\n\n\tlog {}  https://log.example/\n", log(9));
        for (name, seed) in [("X1", 1), ("X2", 2), ("X3", 3), ("Y1", 4), ("Y2", 5), ("Y3", 6)] {
            text.push_str(&format!("witness {name} {}\n", cosigner(seed)));
        }
        text + "group X-witnesses 2 X1 X2 X3\ngroup Y-witnesses any Y1 Y2 Y3\n \
                group X-and-Y all X-witnesses Y-witnesses \nquorum X-and-Y\n"
    }

    fn satisfied(policy: &str, seeds: &[u8]) -> bool {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        policy.is_satisfied(|key| seeds.iter().any(|seed| cosigner(*seed) == *key))
    }

    #[test]
    fn groups_count_as_the_example_says() {
        let policy = Policy::parse(example().as_bytes()).unwrap();
        assert_eq!((policy.logs(), policy.witnesses().len()), (&[log(9)][..], 6));
        for (seeds, enough) in [
            (&[1, 2, 4][..], true),
            (&[1, 2, 3, 4, 5, 6], true),
            (&[1, 2, 3], false),
            (&[1, 4, 5, 6], false),
            (&[], false),
        ] {
            assert_eq!(satisfied(&example(), seeds), enough, "{seeds:?}");
        }
    }

    #[test]
    fn a_quorum_may_be_one_witness_or_nobody() {
        let witness = format!("witness 证人 {}\n", cosigner(1));
        assert!(satisfied(&format!("{witness}quorum none\n"), &[]));
        assert!(satisfied("quorum none\n", &[]));
        let one = format!("{witness}quorum 证人\n");
        assert!(satisfied(&one, &[1]) && !satisfied(&one, &[2]));
    }

    #[test]
    fn malformed_policies_are_refused() {
        let (a, b) = (format!("witness a {}\n", cosigner(1)), format!("witness b {}\n", cosigner(2)));
        let refused = |text: &str| Policy::parse(text.as_bytes()).unwrap_err();
        for text in [
            "surprise\nquorum none\n".to_owned(),
            "log\nquorum none\n".to_owned(),
            format!("witness none {}\nquorum none\n", cosigner(1)),
            format!("witness a {} url more\nquorum none\n", cosigner(1)),
        ] {
            assert_eq!(refused(&text), PolicyError::Malformed { line: 1 }, "{text}");
        }
        for group in [
            "group g",
            "group g 1",
            "group g 0 a b",
            "group g 3 a b",
            "group g 02 a b",
            "group none 1 a",
            "quorum",
        ] {
            let text = format!("{a}{b}{group}\nquorum a\n");
            assert_eq!(refused(&text), PolicyError::Malformed { line: 3 }, "{text}");
        }
        for (line, text) in [
            (2, format!("{a}{a}quorum a\n")),
            (2, format!("{a}witness other {}\nquorum a\n", cosigner(1))),
            (2, format!("{a}witness a {}\nquorum a\n", cosigner(2))),
            (3, format!("{a}{b}group a any b\nquorum a\n")),
            (2, format!("{a}group g 2 a a\nquorum g\n")),
            (3, format!("{a}group g all a\ngroup h all a\nquorum g\n")),
            (3, format!("{a}quorum a\nquorum a\n")),
            (
                2,
                format!(
                    "log {}\nlog {}\nquorum none\n",
                    log(1),
                    VerifierKey::ed25519("x", &[1; 32]).unwrap()
                ),
            ),
        ] {
            assert_eq!(refused(&text), PolicyError::Duplicate { line }, "{text}");
        }
        for text in
            [format!("quorum a\n{a}"), format!("group g any a\n{a}quorum g\n"), "group g any none\n".into()]
        {
            assert_eq!(refused(&text), PolicyError::Undefined { line: 1 }, "{text}");
        }
        // A log's key is no witness's, and the other way round.
        for text in
            [format!("log {}\n", cosigner(1)), format!("witness a {}\n", log(1)), "log x\n".to_owned()]
        {
            assert_eq!(refused(&text), PolicyError::Key { line: 1 }, "{text}");
        }
        for text in ["", "quorum none", "quorum none\r\n", "quorum\u{b}none\n", "# \u{7f}\n"] {
            assert_eq!(refused(text), PolicyError::NotText, "{text:?}");
        }
        assert_eq!(refused("\n"), PolicyError::NoQuorum);
        assert_eq!(refused(&"\n".repeat(MAX_POLICY_BYTES + 1)), PolicyError::TooLong);
    }
}
