//! Shared data (数据共享) as requests, answers and journaled documents name it alike: states, steps, scopes and clocks.
//!
//! Values and pure functions; nothing to lose.

use serde::{Deserialize, Serialize};

use crate::date::Date;
use crate::workday::Due;

/// Where a resource is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceState {
    /// Written, and seen by its provider alone.
    Draft,
    /// In the catalogue.
    Published,
    /// In the catalogue, with a definition that has changed since it was published.
    Changed,
    /// In the catalogue, and not answered for the time being.
    Suspended,
    /// Out of the catalogue for good.
    Withdrawn,
}

impl ResourceState {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Changed => "changed",
            Self::Suspended => "suspended",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Whether anybody but its provider sees it.
    pub const fn is_listed(self) -> bool {
        matches!(self, Self::Published | Self::Changed | Self::Suspended)
    }

    /// Whether it is applied for and answered.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Published | Self::Changed)
    }
}

/// A step of a resource's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceAction {
    /// From draft into the catalogue.
    Publish,
    /// No answers for the time being.
    Suspend,
    /// Answers again.
    Resume,
    /// Out of the catalogue for good.
    Withdraw,
}

impl ResourceAction {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Withdraw => "withdraw",
        }
    }
}

/// Where an application stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationState {
    /// 待审核: the provider has to answer.
    Pending,
    /// The provider agreed, and an operator has to countersign.
    Countersign,
    /// 已同意: agreed, and not supplied yet.
    Agreed,
    /// 不同意.
    Refused,
    /// 已提供.
    Provided,
    /// 使用中.
    InUse,
    /// 停用.
    Stopped,
}

impl ApplicationState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Countersign,
        Self::Agreed,
        Self::Refused,
        Self::Provided,
        Self::InUse,
        Self::Stopped,
    ];

    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Countersign => "countersign",
            Self::Agreed => "agreed",
            Self::Refused => "refused",
            Self::Provided => "provided",
            Self::InUse => "in-use",
            Self::Stopped => "stopped",
        }
    }

    /// Whether queries rest on it.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Provided | Self::InUse)
    }

    /// Whether another application may take its place.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Refused | Self::Stopped)
    }
}

/// The rule by which an application was granted at once (秒享).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantRule {
    /// The resource is shared without a condition (class 1).
    Unconditional,
    /// The need was agreed on beforehand.
    Agreed,
}

impl GrantRule {
    /// The name in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unconditional => "unconditional",
            Self::Agreed => "agreed",
        }
    }
}

/// The extent of use that an application asks and an approval allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Scope {
    /// Keys of fields.
    pub fields: Vec<String>,
    /// Those of them that are shown without a mask.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clear: Vec<String>,
    /// Fronts of the region codes whose rows are seen; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Most queries a day (China Standard Time), and rows of a feed; `None` = without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_limit: Option<u32>,
    /// All rows of these regions are read as a feed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub feed: bool,
    /// Last valid day.
    pub until: Date,
}

impl Scope {
    /// Whether this allows no more than another one.
    pub fn is_within(&self, other: &Self) -> bool {
        let all = |own: &[String], others: &[String]| own.iter().all(|one| others.contains(one));
        let regions = other.regions.is_empty()
            || !self.regions.is_empty()
                && self
                    .regions
                    .iter()
                    .all(|one| other.regions.iter().any(|front| one.starts_with(front.as_str())));
        let limit = other.daily_limit.is_none_or(|most| self.daily_limit.is_some_and(|limit| limit <= most));
        all(&self.fields, &other.fields)
            && all(&self.clear, &other.clear)
            && regions
            && limit
            && (!self.feed || other.feed)
            && self.until <= other.until
    }

    /// Whether a row of a region is seen; a row without one is seen where no region is named.
    pub fn sees(&self, region: Option<&str>) -> bool {
        self.regions.is_empty()
            || region
                .is_some_and(|region| self.regions.iter().any(|front| region.starts_with(front.as_str())))
    }
}

/// A step of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApplicationAction {
    /// The provider agrees, to all that was asked or less.
    Approve,
    /// The provider refuses, on a ground with its legal basis.
    Refuse,
    /// Either side says something; nothing else changes.
    Negotiate,
    /// An operator countersigns.
    Countersign,
    /// The provider has supplied what was agreed.
    Provide,
    /// The applicant asks the operator to settle a dispute.
    Dispute,
    /// The operator has settled it.
    Settle,
    /// The applicant withdraws the application or ends the use; the provider ends it on a ground.
    Stop,
}

impl ApplicationAction {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Refuse => "refuse",
            Self::Negotiate => "negotiate",
            Self::Countersign => "countersign",
            Self::Provide => "provide",
            Self::Dispute => "dispute",
            Self::Settle => "settle",
            Self::Stop => "stop",
        }
    }
}

/// A step that a clock runs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockStep {
    /// The provider answers an application.
    Answer,
    /// The provider supplies what was agreed.
    Provide,
}

/// A clock that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Running {
    /// For which step.
    pub step: ClockStep,
    /// From when on, ms since 1970.
    pub since_ms: u64,
    /// For how many working days.
    pub working_days: u16,
    /// Where that stands.
    pub source: String,
    /// Until when.
    pub due: Due,
}

impl Running {
    /// Whether it has ended. A clock whose end is not known has not.
    pub fn is_over(&self, now_ms: u64) -> bool {
        self.due.last_ms().is_some_and(|last_ms| now_ms > last_ms)
    }
}

/// How the values of a license and a row stand to each other (比对).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agreement {
    /// They say the same.
    Match,
    /// They say different things.
    Mismatch,
    /// One of them says nothing, or there is no row.
    Absent,
}

/// Where a mismatch of a license and a base resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MismatchState {
    /// They differed when they were last compared.
    Open,
    /// They no longer do.
    Corrected,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            fields: vec!["a".into(), "b".into()],
            clear: vec!["a".into()],
            regions: vec!["4401".into()],
            daily_limit: Some(10),
            feed: false,
            until: "2027-01-01".parse().expect("a day"),
        }
    }

    #[test]
    fn an_approval_is_never_wider_than_what_was_asked() {
        let asked = scope();
        let within = |change: fn(&mut Scope)| {
            let mut terms = scope();
            change(&mut terms);
            terms.is_within(&asked)
        };
        assert!(within(|_| {}));
        assert!(within(|terms| terms.fields.truncate(1)));
        assert!(within(|terms| terms.clear.clear()));
        assert!(within(|terms| terms.regions = vec!["440106".into()]));
        assert!(within(|terms| terms.daily_limit = Some(1)));
        assert!(!within(|terms| terms.fields.push("c".into())));
        assert!(!within(|terms| terms.clear.push("b".into())));
        assert!(!within(|terms| terms.regions.clear()));
        assert!(!within(|terms| terms.regions = vec!["44".into()]));
        assert!(!within(|terms| terms.daily_limit = None));
        assert!(!within(|terms| terms.feed = true));
        assert!(!within(|terms| terms.until = "2027-01-02".parse().expect("a day")));
    }

    #[test]
    fn a_county_sees_its_own_rows_alone() {
        let county = scope();
        assert!(county.sees(Some("440106")) && county.sees(Some("4401")));
        assert!(!county.sees(Some("440203")) && !county.sees(None) && !county.sees(Some("44")));
        assert!(Scope { regions: Vec::new(), ..scope() }.sees(None));
    }
}
