//! Kinds that requests, answers and journaled documents name alike.
//!
//! Values; nothing to lose.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::numbered;

/// Decisions that take two operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalKind {
    /// Destroy a holder's key: what is sealed under it can never be read again.
    EraseHolder,
    /// Keep a holder from being erased.
    HoldHolder,
    /// End a legal hold.
    ReleaseHold,
    /// Change the epoch now, which completes the erasures so far.
    RotateEpoch,
    /// Write a registration, which is then not suspended.
    RegisterParticipant,
    /// Publish a license type's definition, or one that takes the place of the one there is.
    PublishType,
    /// Publish a year's calendar of holidays, or one that takes the place of the one there is.
    PublishCalendar,
    /// Allow calls to an address of a provider's, or end that.
    AllowAddress,
    /// Publish policies in place of those there are.
    PublishPolicies,
}

/// The right by which somebody acts for a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// 监护人.
    Guardian,
    /// 代理人 (授权代理).
    Agent,
    /// 亲友代办人.
    Relative,
    /// 法定代表人 of an organisation.
    LegalRepresentative,
    /// 经理, whom the legal representative lets act.
    Manager,
    /// 经办人, whom the legal representative or a manager lets act.
    Clerk,
}

impl LinkKind {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::Agent => "agent",
            Self::Relative => "relative",
            Self::LegalRepresentative => "legal-representative",
            Self::Manager => "manager",
            Self::Clerk => "clerk",
        }
    }

    /// The tier in an organisation (分级授权), from the top; `None` for who acts for the holder alone.
    pub const fn tier(self) -> Option<u8> {
        match self {
            Self::LegalRepresentative => Some(1),
            Self::Manager => Some(2),
            Self::Clerk => Some(3),
            Self::Guardian | Self::Agent | Self::Relative => None,
        }
    }

    /// Whether a link of this kind may stand under one of another kind; without `parent` whether the holder may give it.
    pub fn may_stand_under(self, parent: Option<Self>) -> bool {
        match (self.tier(), parent) {
            (None | Some(1), None) => true,
            (Some(own), Some(parent)) => parent.tier().is_some_and(|above| above < own),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

numbered! {
    /// A field of use (用证场景) that a grant may be limited to.
    Scenario: u8 {
        /// 市场准入.
        MarketEntry = 1 "market-entry",
        /// 纳税缴费.
        Tax = 2 "tax",
        /// 金融服务.
        Finance = 3 "finance",
        /// 招投标.
        Bidding = 4 "bidding",
        /// 社会保险.
        SocialInsurance = 5 "social-insurance",
        /// 医疗保障.
        MedicalInsurance = 6 "medical-insurance",
        /// 户籍.
        HouseholdRegistration = 7 "household-registration",
        /// 行政执法.
        LawEnforcement = 8 "law-enforcement",
        /// 市场监管.
        MarketSupervision = 9 "market-supervision",
        /// 合同订立.
        Contract = 10 "contract",
        /// 人员招聘.
        Recruitment = 11 "recruitment",
        /// 交通出行.
        Transport = 12 "transport",
        /// 文化旅游.
        CultureTourism = 13 "culture-tourism",
    }
}

impl Scenario {
    /// The scenario of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|scenario| scenario.name() == name)
    }
}

impl Serialize for Scenario {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Scenario {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<'_, str>::deserialize(deserializer)?;
        Self::from_name(&name).ok_or_else(|| D::Error::custom("there is no such scenario"))
    }
}

/// The verifiers that a presentation code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verifiers {
    /// The verifiers that may scan.
    Any,
    /// State organs (机关), by their USCC.
    Government,
    /// Participants of role kiosk.
    Kiosk,
    /// Participants of role inspector.
    Inspector,
}

impl Verifiers {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Any, Self::Government, Self::Kiosk, Self::Inspector];

    /// The name in requests, answers and what holders are told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Government => "government",
            Self::Kiosk => "kiosk",
            Self::Inspector => "inspector",
        }
    }
}

/// A class of routes, as the limits of a participant name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Facility {
    /// Verification, one or many.
    Verify,
    /// Content of licenses.
    Retrieve,
    /// The index of a holder's licenses.
    Search,
    /// Presentation codes and permits that are scanned.
    Scan,
    /// Rows of shared resources.
    Records,
}

impl Facility {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Verify, Self::Retrieve, Self::Search, Self::Scan, Self::Records];

    /// The name in registrations and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Retrieve => "retrieve",
            Self::Search => "search",
            Self::Scan => "scan",
            Self::Records => "records",
        }
    }
}

/// A step of a grant's life, beside its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantAction {
    /// It gives no right for the time being.
    Pause,
    /// It gives its right again.
    Resume,
    /// It gives less, for good.
    Narrow,
}

impl GrantAction {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Narrow => "narrow",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LinkKind as K;

    #[test]
    fn tiers_go_down_and_others_stand_alone() {
        for root in [K::Guardian, K::Agent, K::Relative, K::LegalRepresentative] {
            assert!(root.may_stand_under(None));
        }
        assert!(K::Manager.may_stand_under(Some(K::LegalRepresentative)));
        assert!(K::Clerk.may_stand_under(Some(K::Manager)));
        assert!(K::Clerk.may_stand_under(Some(K::LegalRepresentative)));
        // A gap, the wrong way round, a tier under its own, and somebody's private agent.
        assert!(!K::Manager.may_stand_under(None) && !K::Clerk.may_stand_under(None));
        assert!(!K::Manager.may_stand_under(Some(K::Clerk)));
        assert!(!K::Manager.may_stand_under(Some(K::Manager)));
        assert!(!K::Agent.may_stand_under(Some(K::Agent)));
        assert!(!K::Clerk.may_stand_under(Some(K::Agent)));
    }
}
