//! License states, the operations that change them, and the only table of allowed changes.
//!
//! States and operations are those of the ministries' aggregation interfaces. Expiry is computed from the end date
//! and needs no operation; a license past its end counts as ended here although its stored state still says 01.
//!
//! Pure functions; nothing to lose.

use std::fmt;
use std::str::FromStr;

use crate::identifier::serde_as_string;

/// State of a license (证照状态).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum LicenseState {
    /// 01 有效.
    Valid = 1,
    /// 02 暂扣.
    Suspended = 2,
    /// 03 撤销.
    Withdrawn = 3,
    /// 04 注销.
    Cancelled = 4,
    /// 05 失效.
    Lapsed = 5,
    /// 06 办理转出.
    MovedOut = 6,
    /// 07 吊销.
    Revoked = 7,
    /// 99 其他.
    Other = 99,
}

impl LicenseState {
    /// Every state, in the order of the numbers.
    pub const ALL: &[Self] = &[
        Self::Valid,
        Self::Suspended,
        Self::Withdrawn,
        Self::Cancelled,
        Self::Lapsed,
        Self::MovedOut,
        Self::Revoked,
        Self::Other,
    ];

    /// The number, as journal records hold it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Valid => 1,
            Self::Suspended => 2,
            Self::Withdrawn => 3,
            Self::Cancelled => 4,
            Self::Lapsed => 5,
            Self::MovedOut => 6,
            Self::Revoked => 7,
            Self::Other => 99,
        }
    }

    /// The two digits, as JSON holds them.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Valid => "01",
            Self::Suspended => "02",
            Self::Withdrawn => "03",
            Self::Cancelled => "04",
            Self::Lapsed => "05",
            Self::MovedOut => "06",
            Self::Revoked => "07",
            Self::Other => "99",
        }
    }

    /// The Chinese name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "有效",
            Self::Suspended => "暂扣",
            Self::Withdrawn => "撤销",
            Self::Cancelled => "注销",
            Self::Lapsed => "失效",
            Self::MovedOut => "办理转出",
            Self::Revoked => "吊销",
            Self::Other => "其他",
        }
    }

    /// The state of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.number() == number)
    }

    /// Whether the license ends here. From 05 the renewal of an expired license is still allowed
    /// ([`transition`]); it makes a new version and leaves the old one where it is.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Valid | Self::Suspended | Self::MovedOut)
    }

    /// The two bits of the license in a status list: 0 valid, 1 invalid, 2 suspended, 3 see the issuer.
    pub const fn status_bits(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Suspended => 2,
            Self::MovedOut | Self::Other => 3,
            Self::Withdrawn | Self::Cancelled | Self::Lapsed | Self::Revoked => 1,
        }
    }
}

/// An operation on a license (证照操作).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// 01 新发.
    Issue = 1,
    /// 02 延续.
    Renew = 2,
    /// 03 暂扣.
    Suspend = 3,
    /// 04 过期失效.
    Expire = 4,
    /// 05 注销, with the state wanted: 撤销, 注销, 吊销 or 办理转出.
    End = 5,
    /// 06 暂扣发还.
    Release = 6,
    /// 07 其他, with a description.
    Other = 7,
    /// 08 转入, from a predecessor in state 06.
    MoveIn = 8,
    /// 09 变更.
    Change = 9,
    /// 10 取消转出.
    CancelMove = 10,
}

impl Operation {
    /// Every operation, in the order of the numbers.
    pub const ALL: &[Self] = &[
        Self::Issue,
        Self::Renew,
        Self::Suspend,
        Self::Expire,
        Self::End,
        Self::Release,
        Self::Other,
        Self::MoveIn,
        Self::Change,
        Self::CancelMove,
    ];

    /// The number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Issue => 1,
            Self::Renew => 2,
            Self::Suspend => 3,
            Self::Expire => 4,
            Self::End => 5,
            Self::Release => 6,
            Self::Other => 7,
            Self::MoveIn => 8,
            Self::Change => 9,
            Self::CancelMove => 10,
        }
    }

    /// The two digits, as JSON holds them.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Issue => "01",
            Self::Renew => "02",
            Self::Suspend => "03",
            Self::Expire => "04",
            Self::End => "05",
            Self::Release => "06",
            Self::Other => "07",
            Self::MoveIn => "08",
            Self::Change => "09",
            Self::CancelMove => "10",
        }
    }

    /// The Chinese name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Issue => "新发",
            Self::Renew => "延续",
            Self::Suspend => "暂扣",
            Self::Expire => "过期失效",
            Self::End => "注销",
            Self::Release => "暂扣发还",
            Self::Other => "其他",
            Self::MoveIn => "转入",
            Self::Change => "变更",
            Self::CancelMove => "取消转出",
        }
    }

    /// The operation of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|operation| operation.number() == number)
    }
}

/// A text that is no code of a state or an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such state or operation code")]
pub struct CodeError;

impl FromStr for LicenseState {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::ALL.iter().copied().find(|state| state.code() == text).ok_or(CodeError)
    }
}

impl fmt::Display for LicenseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Operation {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        Self::ALL.iter().copied().find(|operation| operation.code() == text).ok_or(CodeError)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

serde_as_string!(LicenseState, Operation);

/// The result of an allowed operation on a license.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state afterwards; of the new version, if there is one.
    pub state: LicenseState,
    /// Whether a new version is made, which leaves the old one in 05.
    pub new_version: bool,
}

/// Why an operation is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// 01 and 08 make a license; this one exists.
    #[error("operation {operation} makes a license, and this one exists")]
    Exists {
        /// The operation asked for.
        operation: Operation,
    },
    /// The operation changes a license, and there is none.
    #[error("operation {operation} needs a license")]
    NoLicense {
        /// The operation asked for.
        operation: Operation,
    },
    /// The table has no such operation from this state.
    #[error("operation {operation} is not allowed from state {from}")]
    State {
        /// The operation asked for.
        operation: Operation,
        /// The license's state.
        from: LicenseState,
    },
    /// The license is past its end: only 02 and 04 are left.
    #[error("operation {operation} is not allowed past the license's end")]
    Ended {
        /// The operation asked for.
        operation: Operation,
    },
    /// 04 records an end that has passed, and it has not.
    #[error("operation 04 needs a license past its end")]
    NotEnded,
    /// 02 is allowed from 05 only if operation 04 wrote it.
    #[error("operation 02 is allowed from state 05 only if operation 04 wrote it")]
    NotExpired,
    /// 05 names the state wanted.
    #[error("operation 05 names the state wanted")]
    TargetMissing,
    /// 05 does not lead to that state from this one.
    #[error("operation 05 does not lead from state {from} to state {to}")]
    Target {
        /// The license's state.
        from: LicenseState,
        /// The state asked for.
        to: LicenseState,
    },
    /// Only 05 names a state.
    #[error("operation {operation} names no state")]
    TargetUnexpected {
        /// The operation asked for.
        operation: Operation,
    },
}

/// Decides an operation by the table alone.
///
/// `from` is the stored state, `None` for a license that does not exist yet (01, and 08, whose predecessor the
/// caller checks). `ended` says that the license's end date has passed, `written_by_04` that its state 05 was
/// written by operation 04, `to` is the state wanted by operation 05. That a license in 06 is not taken over (10)
/// is the caller's to know.
///
/// A license past its end counts as no longer valid: from 01 it may be renewed (02), from 01 and 02 its end may be
/// recorded (04), and nothing else. 10 is allowed past the end too, because a license in 06 has no other way out.
///
/// # Errors
/// [`TransitionError`] for everything that is not in the table.
pub fn transition(
    operation: Operation,
    from: Option<LicenseState>,
    ended: bool,
    written_by_04: bool,
    to: Option<LicenseState>,
) -> Result<Transition, TransitionError> {
    use LicenseState as S;
    use Operation as O;

    if to.is_some() && operation != O::End {
        return Err(TransitionError::TargetUnexpected { operation });
    }
    let from = match (operation, from) {
        (O::Issue | O::MoveIn, None) => return Ok(Transition { state: S::Valid, new_version: false }),
        (O::Issue | O::MoveIn, Some(_)) => return Err(TransitionError::Exists { operation }),
        (_, None) => return Err(TransitionError::NoLicense { operation }),
        (_, Some(from)) => from,
    };
    let state = match (operation, from) {
        (O::Renew, S::Lapsed) if !written_by_04 => return Err(TransitionError::NotExpired),
        (O::Renew, S::Valid | S::Lapsed) | (O::Change, S::Valid) => S::Valid,
        (O::Suspend, S::Valid) => S::Suspended,
        (O::Release, S::Suspended) => S::Valid,
        (O::Expire, S::Valid | S::Suspended) if !ended => return Err(TransitionError::NotEnded),
        (O::Expire, S::Valid | S::Suspended) => S::Lapsed,
        (O::End, S::Valid | S::Suspended) => match (from, to.ok_or(TransitionError::TargetMissing)?) {
            (_, to @ (S::Withdrawn | S::Cancelled | S::Revoked)) | (S::Valid, to @ S::MovedOut) => to,
            (from, to) => return Err(TransitionError::Target { from, to }),
        },
        (O::Other, S::Valid | S::Suspended) => S::Other,
        (O::CancelMove, S::MovedOut) => S::Valid,
        (operation, from) => return Err(TransitionError::State { operation, from }),
    };
    if ended && !matches!(operation, O::Renew | O::Expire | O::CancelMove) {
        return Err(TransitionError::Ended { operation });
    }
    Ok(Transition { state, new_version: matches!(operation, O::Renew | O::Change) })
}

/// The operations that the table has from a stored state, as [`transition`] takes it, each with the states that it may name.
pub fn allowed(
    from: LicenseState,
    ended: bool,
    written_by_04: bool,
) -> impl Iterator<Item = (Operation, Option<LicenseState>)> {
    let targets = || LicenseState::ALL.iter().copied().map(Some).chain([None]);
    Operation::ALL
        .iter()
        .flat_map(move |operation| targets().map(|to| (*operation, to)))
        .filter(move |(operation, to)| transition(*operation, Some(from), ended, written_by_04, *to).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_done_is_what_the_table_has() {
        let from = |state, ended, by_04| -> Vec<_> {
            let codes = |(operation, to): (Operation, Option<LicenseState>)| {
                (operation.code(), to.map_or("", LicenseState::code))
            };
            allowed(state, ended, by_04).map(codes).collect()
        };
        let suspended = [("05", "03"), ("05", "04"), ("05", "07"), ("06", ""), ("07", "")];
        assert_eq!(from(LicenseState::Suspended, false, false), suspended);
        assert_eq!(from(LicenseState::Lapsed, true, true), [("02", "")]);
        assert_eq!(from(LicenseState::Revoked, false, false), []);
    }

    /// Written from the design's table, not from the code: operation, from ("" none), past its end (y, n, * any),
    /// 05 written by 04 (the same), target ("" none) -> state, new version.
    const ALLOWED: &[(&str, &str, char, char, &str, &str, bool)] = &[
        ("01", "", '*', '*', "", "01", false),
        ("02", "01", '*', '*', "", "01", true),
        ("02", "05", '*', 'y', "", "01", true),
        ("03", "01", 'n', '*', "", "02", false),
        ("04", "01", 'y', '*', "", "05", false),
        ("04", "02", 'y', '*', "", "05", false),
        ("05", "01", 'n', '*', "03", "03", false),
        ("05", "01", 'n', '*', "04", "04", false),
        ("05", "01", 'n', '*', "07", "07", false),
        ("05", "02", 'n', '*', "03", "03", false),
        ("05", "02", 'n', '*', "04", "04", false),
        ("05", "02", 'n', '*', "07", "07", false),
        ("05", "01", 'n', '*', "06", "06", false),
        ("06", "02", 'n', '*', "", "01", false),
        ("07", "01", 'n', '*', "", "99", false),
        ("07", "02", 'n', '*', "", "99", false),
        ("08", "", '*', '*', "", "01", false),
        ("09", "01", 'n', '*', "", "01", true),
        ("10", "06", '*', '*', "", "01", false),
    ];

    fn state(code: &str) -> Option<LicenseState> {
        (!code.is_empty()).then(|| code.parse().unwrap())
    }

    #[test]
    fn the_table_is_exactly_this() {
        const STATES: [&str; 9] = ["", "01", "02", "03", "04", "05", "06", "07", "99"];
        let mut tried = 0;
        for operation in ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10"] {
            for (from, to) in STATES.iter().flat_map(|from| STATES.iter().map(move |to| (*from, *to))) {
                for (ended, by_04) in [(false, false), (false, true), (true, false), (true, true)] {
                    let fits = |mark: char, flag: bool| mark == '*' || (mark == 'y') == flag;
                    let want = ALLOWED
                        .iter()
                        .find(|row| {
                            (row.0, row.1, row.4) == (operation, from, to)
                                && fits(row.2, ended)
                                && fits(row.3, by_04)
                        })
                        .map(|row| (row.5, row.6));
                    let got = transition(operation.parse().unwrap(), state(from), ended, by_04, state(to));
                    let got = got.ok().map(|done| (done.state.code(), done.new_version));
                    assert_eq!(
                        got, want,
                        "{operation} from {from:?} to {to:?}, ended {ended}, by 04 {by_04}"
                    );
                    tried += 1;
                }
            }
        }
        assert_eq!(tried, 10 * 9 * 9 * 4);
    }

    #[test]
    fn every_refusal_has_its_reason() {
        use LicenseState as S;
        use Operation as O;
        use TransitionError as E;
        let cases = [
            (transition(O::Issue, Some(S::Valid), false, false, None), E::Exists { operation: O::Issue }),
            (transition(O::Suspend, None, false, false, None), E::NoLicense { operation: O::Suspend }),
            (
                transition(O::Suspend, Some(S::Revoked), false, false, None),
                E::State { operation: O::Suspend, from: S::Revoked },
            ),
            (transition(O::Change, Some(S::Valid), true, false, None), E::Ended { operation: O::Change }),
            (transition(O::Expire, Some(S::Valid), false, false, None), E::NotEnded),
            (transition(O::Renew, Some(S::Lapsed), true, false, None), E::NotExpired),
            (transition(O::End, Some(S::Valid), false, false, None), E::TargetMissing),
            (
                transition(O::End, Some(S::Suspended), false, false, Some(S::MovedOut)),
                E::Target { from: S::Suspended, to: S::MovedOut },
            ),
            (
                transition(O::Suspend, Some(S::Valid), false, false, Some(S::Suspended)),
                E::TargetUnexpected { operation: O::Suspend },
            ),
        ];
        for (got, want) in cases {
            assert_eq!(got, Err(want));
        }
    }

    #[test]
    fn nothing_leaves_a_final_state_but_a_renewal() {
        for from in LicenseState::ALL.iter().copied().filter(|state| state.is_final()) {
            for operation in Operation::ALL.iter().copied() {
                for to in LicenseState::ALL.iter().copied().map(Some).chain([None]) {
                    let renewal =
                        operation == Operation::Renew && from == LicenseState::Lapsed && to.is_none();
                    assert_eq!(transition(operation, Some(from), true, true, to).is_ok(), renewal);
                }
            }
        }
    }

    #[test]
    fn numbers_codes_and_bits() {
        let rows = [
            (1, "01", 0),
            (2, "02", 2),
            (3, "03", 1),
            (4, "04", 1),
            (5, "05", 1),
            (6, "06", 3),
            (7, "07", 1),
        ];
        for (number, code, bits) in rows.into_iter().chain([(99, "99", 3)]) {
            let state = LicenseState::from_number(number).unwrap();
            assert_eq!((state.number(), state.code(), state.status_bits()), (number, code, bits));
            assert_eq!(serde_json::from_str::<LicenseState>(&format!("\"{code}\"")).unwrap(), state);
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{code}\""));
        }
        for number in [0, 8, 98, 100, 255] {
            assert_eq!(LicenseState::from_number(number), None);
        }
        for number in 1..=10 {
            let operation = Operation::from_number(number).unwrap();
            assert_eq!((operation.number(), operation.code()), (number, format!("{number:02}").as_str()));
            assert_eq!(serde_json::to_string(&operation).unwrap(), format!("\"{number:02}\""));
        }
        assert_eq!((Operation::from_number(0), Operation::from_number(11)), (None, None));
        for json in ["\"1\"", "1", "\"11\"", "\"\"", "\"001\""] {
            assert!(serde_json::from_str::<LicenseState>(json).is_err(), "{json}");
            assert!(serde_json::from_str::<Operation>(json).is_err(), "{json}");
        }
    }
}
