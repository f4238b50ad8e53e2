//! Policies in Cedar: the facts that they are written over, those of a log in which no others were published, and the classes of
//! routes that they call actions.
//!
//! Anyone reads. Pure tables; nothing to lose.

use crate::numbered;
use crate::routes::Route;

/// The schema that policies are validated against.
pub const SCHEMA: &str = include_str!("../policy/miaoxiang.cedarschema");
/// The policies of a log in which no others were published: the rules of the roles.
pub const ROLES: &str = include_str!("../policy/roles.cedar");
/// Longest text of policies, bytes.
pub const MAX_BYTES: usize = 128 * 1024;

numbered! {
    /// A class of routes: an action of policies.
    Class: u8 {
        /// Issue licenses, change their state, list one's own.
        Issue = 1 "issue",
        /// Verify licenses.
        Verify = 2 "verify",
        /// Disclose parts of licenses.
        Retrieve = 3 "retrieve",
        /// The index of a holder's licenses.
        Search = 4 "search",
        /// Make, change and end grants, links and presentation codes.
        Grant = 5 "grant",
        /// List grants.
        ListGrants = 6 "list-grants",
        /// A holder's trace.
        Trace = 7 "trace",
        /// The log, for auditors.
        Audit = 8 "audit",
        /// Write the register.
        Register = 9 "register",
        /// Read the register, and one's own uses.
        ReadRegister = 10 "read-register",
        /// Describe shared resources and bring their rows in.
        ProvideData = 11 "provide-data",
        /// Read the catalogue and the dictionaries.
        ReadCatalogue = 12 "read-catalogue",
        /// Apply for a shared resource.
        Apply = 13 "apply",
        /// Answer an application, supply it, end it.
        DecideApplication = 14 "decide-application",
        /// List applications.
        ListApplications = 15 "list-applications",
        /// Use rows of shared resources.
        UseData = 16 "use-data",
        /// Bring dictionaries and mappings in.
        ImportItems = 17 "import-items",
        /// Ask which materials need not be handed in.
        SpareMaterials = 18 "spare-materials",
        /// Keep materials, and report those demanded on paper.
        KeepMaterial = 19 "keep-material",
        /// Compare licenses with base resources.
        Compare = 20 "compare",
        /// List licenses and base resources that disagree.
        ListMismatches = 21 "list-mismatches",
        /// Scan presentation codes, or inspect permits.
        ScanCode = 22 "scan-code",
    }
}

impl Route {
    /// The action that policies know the route by. `None`: policies are not asked, so that no set of them locks out the operators
    /// who replace it.
    pub const fn class(self) -> Option<Class> {
        Some(match self {
            Self::None
            | Self::System
            | Self::Propose
            | Self::Approve
            | Self::ProposalList
            | Self::PolicyShow
            // Each of its questions is asked by itself.
            | Self::Evaluations => return None,
            Self::Issue | Self::Transition | Self::IssuedList => Class::Issue,
            Self::Verify | Self::VerifyBatch | Self::Evaluation => Class::Verify,
            Self::Retrieve | Self::Bundle => Class::Retrieve,
            Self::Search => Class::Search,
            Self::GrantCreate
            | Self::GrantRevoke
            | Self::GrantChange
            | Self::LinkMake
            | Self::LinkEnd
            | Self::CodeMint
            | Self::CodeEnd => Class::Grant,
            Self::CodeScan => Class::ScanCode,
            Self::GrantSearch => Class::ListGrants,
            Self::Trace => Class::Trace,
            Self::LogQuery => Class::Audit,
            Self::ParticipantAdd | Self::ParticipantChange | Self::ParticipantSuspend => Class::Register,
            Self::ParticipantList | Self::Usage => Class::ReadRegister,
            Self::ResourceWrite | Self::ResourceTransition | Self::RecordsIngest => Class::ProvideData,
            Self::ResourceSearch | Self::ItemsSearch => Class::ReadCatalogue,
            Self::ApplicationMake => Class::Apply,
            Self::ApplicationTransition => Class::DecideApplication,
            Self::ApplicationList => Class::ListApplications,
            Self::RecordsQuery | Self::RecordsCall | Self::RecordsFeed => Class::UseData,
            Self::ItemsImport => Class::ImportItems,
            Self::ItemsMaterials => Class::SpareMaterials,
            Self::MaterialKeep | Self::ItemsDemanded => Class::KeepMaterial,
            Self::RecordsCompare => Class::Compare,
            Self::RecordsMismatches => Class::ListMismatches,
        })
    }

    /// The action of a request: a question and a line of a bundle are asked as the use that they are about. A verification has no
    /// mode, and a query of rows names a resource.
    pub const fn class_of(self, of_resource: bool, of_mode: bool) -> Option<Class> {
        match self {
            Self::Bundle if of_resource => Some(Class::UseData),
            Self::Bundle | Self::Evaluation => Some(if of_mode { Class::Retrieve } else { Class::Verify }),
            route => route.class(),
        }
    }
}
