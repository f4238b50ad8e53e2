//! Every HTTP route, by listener. The router is built from this table and `openapi.json` is compared with it.

/// Which listener serves a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// mTLS, identified callers; every answer is journaled.
    Data,
    /// TLS, anyone, GET only.
    Public,
    /// Loopback, operators.
    Admin,
}

/// A route of the data listener; the number stands in `open` (section 4 of the formats).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Route {
    /// No such route: still a refusal to an identified caller.
    None = 0,
    /// Issue a license.
    Issue = 1,
    /// Change a license's state or version.
    Transition = 2,
    /// Index of a holder's licenses.
    Search = 3,
    /// Fields, face, envelope or annotated copy of one license.
    Retrieve = 4,
    /// Verify a license.
    Verify = 5,
    /// Create a grant.
    GrantCreate = 6,
    /// Revoke a grant.
    GrantRevoke = 7,
    /// Register a participant.
    ParticipantAdd = 8,
    /// Change a participant.
    ParticipantChange = 9,
    /// Suspend a participant, or lift the suspension.
    ParticipantSuspend = 10,
    /// Who used a holder's licenses.
    Trace = 11,
    /// An auditor's questions.
    LogQuery = 12,
    /// Propose what needs two operators.
    Propose = 13,
    /// Approve another operator's proposal.
    Approve = 14,
    /// Make a link between a holder and a guardian or agent.
    LinkMake = 15,
    /// End a link.
    LinkEnd = 16,
    /// The register, as far as the caller may see it.
    ParticipantList = 17,
    /// The proposals of two operators' decisions.
    ProposalList = 18,
    /// A holder's grants, or the caller's.
    GrantSearch = 19,
    /// An issuing authority's own licenses.
    IssuedList = 20,
    /// Entries of the exchange itself: initial register and types, shed counts, key events.
    System = 128,
}

impl Route {
    /// Every route, data routes first.
    pub const ALL: &[Self] = &[
        Self::None,
        Self::Issue,
        Self::Transition,
        Self::Search,
        Self::Retrieve,
        Self::Verify,
        Self::GrantCreate,
        Self::GrantRevoke,
        Self::ParticipantAdd,
        Self::ParticipantChange,
        Self::ParticipantSuspend,
        Self::Trace,
        Self::LogQuery,
        Self::LinkMake,
        Self::LinkEnd,
        Self::Propose,
        Self::Approve,
        Self::ParticipantList,
        Self::ProposalList,
        Self::GrantSearch,
        Self::IssuedList,
        Self::System,
    ];

    /// The stable number.
    pub const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Issue => 1,
            Self::Transition => 2,
            Self::Search => 3,
            Self::Retrieve => 4,
            Self::Verify => 5,
            Self::GrantCreate => 6,
            Self::GrantRevoke => 7,
            Self::ParticipantAdd => 8,
            Self::ParticipantChange => 9,
            Self::ParticipantSuspend => 10,
            Self::Trace => 11,
            Self::LogQuery => 12,
            Self::LinkMake => 15,
            Self::LinkEnd => 16,
            Self::Propose => 13,
            Self::Approve => 14,
            Self::ParticipantList => 17,
            Self::ProposalList => 18,
            Self::GrantSearch => 19,
            Self::IssuedList => 20,
            Self::System => 128,
        }
    }

    /// The stable name: metric label and log value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Issue => "issue",
            Self::Transition => "transition",
            Self::Search => "search",
            Self::Retrieve => "retrieve",
            Self::Verify => "verify",
            Self::GrantCreate => "grant-create",
            Self::GrantRevoke => "grant-revoke",
            Self::ParticipantAdd => "participant-add",
            Self::ParticipantChange => "participant-change",
            Self::ParticipantSuspend => "participant-suspend",
            Self::Trace => "trace",
            Self::LogQuery => "log-query",
            Self::LinkMake => "link-make",
            Self::LinkEnd => "link-end",
            Self::Propose => "propose",
            Self::Approve => "approve",
            Self::ParticipantList => "participant-list",
            Self::ProposalList => "proposal-list",
            Self::GrantSearch => "grant-search",
            Self::IssuedList => "issued-list",
            Self::System => "system",
        }
    }

    /// The route of a stable number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|route| route.number() == number)
    }

    /// The data route with a path; [`Self::None`] where there is none such.
    pub fn at(path: &str) -> Self {
        Self::ALL.iter().copied().find(|route| route.path() == Some(path)).unwrap_or(Self::None)
    }

    /// Path on the data listener; all data routes are POST. `None` for what has no path.
    pub const fn path(self) -> Option<&'static str> {
        match self {
            Self::None | Self::System => None,
            Self::Issue => Some("/v1/licenses"),
            Self::Transition => Some("/v1/licenses/transition"),
            Self::Search => Some("/v1/licenses/search"),
            Self::Retrieve => Some("/v1/licenses/retrieve"),
            Self::Verify => Some("/v1/verify"),
            Self::GrantCreate => Some("/v1/grants"),
            Self::GrantRevoke => Some("/v1/grants/revoke"),
            Self::ParticipantAdd => Some("/v1/participants"),
            Self::ParticipantChange => Some("/v1/participants/change"),
            Self::ParticipantSuspend => Some("/v1/participants/suspend"),
            Self::Trace => Some("/v1/trace"),
            Self::LogQuery => Some("/v1/log/query"),
            Self::LinkMake => Some("/v1/links"),
            Self::LinkEnd => Some("/v1/links/end"),
            Self::Propose => Some("/v1/admin/proposals"),
            Self::Approve => Some("/v1/admin/approve"),
            Self::ParticipantList => Some("/v1/participants/list"),
            Self::ProposalList => Some("/v1/admin/proposals/list"),
            Self::GrantSearch => Some("/v1/grants/search"),
            Self::IssuedList => Some("/v1/licenses/issued"),
        }
    }

    /// HTTP status of a permit.
    pub const fn success_status(self) -> u16 {
        match self {
            Self::Issue | Self::GrantCreate | Self::ParticipantAdd | Self::Propose | Self::LinkMake => 201,
            _ => 200,
        }
    }

    /// Whether the route changes state and so needs an idempotency key.
    pub const fn changes_state(self) -> bool {
        !matches!(
            self,
            Self::None
                | Self::Search
                | Self::Retrieve
                | Self::Verify
                | Self::Trace
                | Self::LogQuery
                | Self::ParticipantList
                | Self::ProposalList
                | Self::GrantSearch
                | Self::IssuedList
        )
    }
}

/// GET routes of the public listener.
pub const PUBLIC: &[&str] = &[
    "/v1/log/checkpoint",
    "/v1/log/tile/{path}",
    "/v1/log/proof/{index}",
    "/v1/log/consistency/{old}/{new}",
    "/v1/types",
    "/v1/trust-bundle",
    "/openapi.json",
];

/// GET routes of the admin listener.
pub const ADMIN: &[&str] = &["/health", "/ready", "/metrics"];
