//! Every HTTP route, by listener: one table, which the router is built from and `openapi.json` is compared with. A row without a
//! column does not compile, and nothing is taken for granted of a row.
//!
//! Pure tables; nothing to lose.

use crate::roles::Role;

/// Which listener serves a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listener {
    /// mTLS, identified callers, POST; every answer is journaled.
    Data,
    /// TLS, anyone, GET only.
    Public,
    /// Loopback, operators.
    Admin,
}

/// The effect of a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It changes state, and so needs an idempotency key.
    Changes,
    /// It says something, which is journaled as a use.
    Uses,
}

/// The roles that may ask, before any right is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    /// Every participant: what each may see is for the decision to say.
    All,
    /// Participants with one of these roles.
    Of(&'static [Role]),
}

impl Roles {
    /// Whether a participant with these roles may ask.
    pub fn admit(self, has: &[Role]) -> bool {
        match self {
            Self::All => true,
            Self::Of(roles) => roles.iter().any(|role| has.contains(role)),
        }
    }
}

/// A form of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/vnd.miaoxiang+flatbuffers`, for machine peers.
    Machine,
    /// `application/x-ndjson`: many requests in JSON, a line each, answered by a line each.
    Lines,
}

impl Form {
    /// The media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Machine => crate::machine::MEDIA_TYPE,
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// The contract of a data route, beside the shape of its bodies. All are POST on the data listener; a permit and a
/// refusal are an entry each.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// Path; `None` for what has none.
    pub path: Option<&'static str>,
    /// HTTP status of a permit.
    pub success_status: u16,
    /// The effect of a permit.
    pub effect: Effect,
    /// The roles that may ask.
    pub roles: Roles,
    /// Forms of its requests.
    pub forms: &'static [Form],
    /// Longest body, bytes.
    pub body_bytes: usize,
    /// Longest time that a body may take to arrive, seconds.
    pub body_seconds: u64,
    /// Its answer is sealed under an idempotency key, to be given again.
    pub is_given_again: bool,
}

const JSON: &[Form] = &[Form::Json];
const JSON_AND_MACHINE: &[Form] = &[Form::Json, Form::Machine];
const JSON_AND_LINES: &[Form] = &[Form::Json, Form::Lines];
const ALL_FORMS: &[Form] = &[Form::Json, Form::Machine, Form::Lines];
/// An issue request with every field at its longest stays below.
const USUAL_BODY_BYTES: usize = 256 * 1024;
const USUAL_BODY_SECONDS: u64 = 10;
/// A batch of rows.
const BATCH_BODY_BYTES: usize = 2 * 1024 * 1024;
const BATCH_BODY_SECONDS: u64 = 60;
/// Ten thousand requests of 800 bytes, a line each.
const MANY_BODY_BYTES: usize = 8 * 1024 * 1024;

macro_rules! routes {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal $text:literal { $($column:tt)+ }),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number),+ }

        impl $name {
            /// Every route, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable number.
            pub const fn number(self) -> u8 {
                match self { $(Self::$variant => $number),+ }
            }

            /// The stable name: metric label and log value.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The route's contract.
            pub const fn contract(self) -> Contract {
                match self { $(Self::$variant => Contract { $($column)+ }),+ }
            }

            /// The route of a stable number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

routes! {
    /// A route of the data listener; the number stands in `open` (section 4 of the formats).
    Route {
        /// No such route: still a refusal to an identified caller.
        None = 0 "none" {
            path: None, success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Issue a license.
        Issue = 1 "issue" {
            path: Some("/v1/licenses"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Issuer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Change a license's state or version.
        Transition = 2 "transition" {
            path: Some("/v1/licenses/transition"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Issuer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Index of a holder's licenses.
        Search = 3 "search" {
            path: Some("/v1/licenses/search"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Fields, face, envelope or annotated copy of one license.
        Retrieve = 4 "retrieve" {
            path: Some("/v1/licenses/retrieve"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON_AND_MACHINE,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Verify a license.
        Verify = 5 "verify" {
            path: Some("/v1/verify"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Portal, Role::Issuer, Role::Peer]), forms: ALL_FORMS,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Create a grant.
        GrantCreate = 6 "grant-create" {
            path: Some("/v1/grants"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Revoke a grant.
        GrantRevoke = 7 "grant-revoke" {
            path: Some("/v1/grants/revoke"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Register a participant.
        ParticipantAdd = 8 "participant-add" {
            path: Some("/v1/participants"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Change a participant.
        ParticipantChange = 9 "participant-change" {
            path: Some("/v1/participants/change"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Suspend a participant, or lift the suspension.
        ParticipantSuspend = 10 "participant-suspend" {
            path: Some("/v1/participants/suspend"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// The uses of a holder's licenses.
        Trace = 11 "trace" {
            path: Some("/v1/trace"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// An auditor's questions.
        LogQuery = 12 "log-query" {
            path: Some("/v1/log/query"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Auditor]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Propose what needs two operators.
        Propose = 13 "propose" {
            path: Some("/v1/admin/proposals"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Approve another operator's proposal.
        Approve = 14 "approve" {
            path: Some("/v1/admin/approve"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Make a link between a holder and a guardian or agent.
        LinkMake = 15 "link-make" {
            path: Some("/v1/links"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// End a link.
        LinkEnd = 16 "link-end" {
            path: Some("/v1/links/end"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// The register, as far as the caller may see it.
        ParticipantList = 17 "participant-list" {
            path: Some("/v1/participants/list"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// The proposals of two operators' decisions.
        ProposalList = 18 "proposal-list" {
            path: Some("/v1/admin/proposals/list"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// A holder's grants, or the caller's.
        GrantSearch = 19 "grant-search" {
            path: Some("/v1/grants/search"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Portal, Role::Relying, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// An issuing authority's own licenses.
        IssuedList = 20 "issued-list" {
            path: Some("/v1/licenses/issued"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Issuer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Write a resource's definition.
        ResourceWrite = 30 "resource-write" {
            path: Some("/v1/resources"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Provider]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Publish, suspend, resume or withdraw a resource.
        ResourceTransition = 31 "resource-transition" {
            path: Some("/v1/resources/transition"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Provider]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// The catalogue of resources.
        ResourceSearch = 32 "resource-search" {
            path: Some("/v1/resources/search"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Apply for a resource.
        ApplicationMake = 33 "application-make" {
            path: Some("/v1/applications"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Relying, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Answer an application, supply it, end it.
        ApplicationTransition = 34 "application-transition" {
            path: Some("/v1/applications/transition"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Relying, Role::Peer, Role::Provider, Role::Operator]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Applications of the caller, or all.
        ApplicationList = 35 "application-list" {
            path: Some("/v1/applications/list"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Peer, Role::Provider, Role::Operator, Role::Auditor]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Bring rows of a hosted resource in.
        RecordsIngest = 36 "records-ingest" {
            path: Some("/v1/records/ingest"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Provider]), forms: JSON,
            body_bytes: BATCH_BODY_BYTES, body_seconds: BATCH_BODY_SECONDS, is_given_again: true
        },
        /// A row of a hosted resource.
        RecordsQuery = 37 "records-query" {
            path: Some("/v1/records/query"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Peer]), forms: JSON_AND_LINES,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// A row from a provider's interface.
        RecordsCall = 38 "records-call" {
            path: Some("/v1/records/call"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Bring a dictionary or mappings in.
        ItemsImport = 40 "items-import" {
            path: Some("/v1/items/import"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Operator, Role::Relying]), forms: JSON,
            body_bytes: BATCH_BODY_BYTES, body_seconds: BATCH_BODY_SECONDS, is_given_again: true
        },
        /// Dictionaries, mappings, and what was demanded on paper.
        ItemsSearch = 41 "items-search" {
            path: Some("/v1/items/search"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Materials of an item that need not be handed in.
        ItemsMaterials = 42 "items-materials" {
            path: Some("/v1/items/materials"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Peer, Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Licenses and rows of one matter, a line each.
        Bundle = 43 "bundle" {
            path: Some("/v1/bundle"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Issuer, Role::Relying, Role::Portal, Role::Peer]), forms: JSON_AND_LINES,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Keep a material that was verified.
        MaterialKeep = 44 "material-keep" {
            path: Some("/v1/items/keep"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Relying]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Report the materials that were demanded on paper.
        ItemsDemanded = 45 "items-demanded" {
            path: Some("/v1/items/demanded"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Relying]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Rows of a hosted resource in the order in which they came, and those that were taken out.
        RecordsFeed = 46 "records-feed" {
            path: Some("/v1/records/feed"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// A license against its row of a base resource.
        RecordsCompare = 47 "records-compare" {
            path: Some("/v1/records/compare"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Issuer, Role::Provider]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Licenses and base resources that disagree.
        RecordsMismatches = 48 "records-mismatches" {
            path: Some("/v1/records/mismatches"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Issuer, Role::Provider, Role::Operator, Role::Auditor]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Verify many licenses, answered with a report.
        VerifyBatch = 49 "verify-batch" {
            path: Some("/v1/verify/batch"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Portal, Role::Issuer, Role::Peer]), forms: JSON_AND_LINES,
            body_bytes: MANY_BODY_BYTES, body_seconds: BATCH_BODY_SECONDS, is_given_again: true
        },
        /// Pause, resume or narrow a grant.
        GrantChange = 50 "grant-change" {
            path: Some("/v1/grants/change"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// The policies in force.
        PolicyShow = 51 "policy-show" {
            path: Some("/v1/admin/policies"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Operator, Role::Auditor]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Whether a use of a license would be permitted (AuthZEN).
        Evaluation = 53 "evaluation" {
            path: Some("/access/v1/evaluation"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Portal, Role::Issuer, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// The same of many uses.
        Evaluations = 54 "evaluations" {
            path: Some("/access/v1/evaluations"), success_status: 200, effect: Effect::Uses, roles: Roles::Of(&[Role::Relying, Role::Portal, Role::Issuer, Role::Peer]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Mint a presentation code.
        CodeMint = 57 "code-mint" {
            path: Some("/v1/codes"), success_status: 201, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// End a presentation code.
        CodeEnd = 58 "code-end" {
            path: Some("/v1/codes/end"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Portal]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// Scan a presentation code, or as an inspector a permit.
        CodeScan = 59 "code-scan" {
            path: Some("/v1/codes/scan"), success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[Role::Relying, Role::Peer, Role::Kiosk, Role::Inspector]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
        /// The caller's own uses, counters and limits.
        Usage = 60 "usage" {
            path: Some("/v1/usage"), success_status: 200, effect: Effect::Uses, roles: Roles::All, forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: false
        },
        /// Entries of the exchange itself: initial register and types, shed counts, key events.
        System = 128 "system" {
            path: None, success_status: 200, effect: Effect::Changes, roles: Roles::Of(&[]), forms: JSON,
            body_bytes: USUAL_BODY_BYTES, body_seconds: USUAL_BODY_SECONDS, is_given_again: true
        },
    }
}

impl Route {
    /// The data route with a path; [`Self::None`] where there is none such.
    pub fn at(path: &str) -> Self {
        Self::ALL.iter().copied().find(|route| route.path() == Some(path)).unwrap_or(Self::None)
    }

    /// Path on the data listener; all data routes are POST. `None` for what has no path.
    pub const fn path(self) -> Option<&'static str> {
        self.contract().path
    }

    /// HTTP status of a permit.
    pub const fn success_status(self) -> u16 {
        self.contract().success_status
    }

    /// Whether what holders are told of it is kept as a use: for its period, and not as long as what it changes stands. The
    /// exchange's own word is of uses, and so is a scan: it changes nothing but that a code is used.
    pub const fn is_use(self) -> bool {
        matches!(self, Self::System | Self::CodeScan) || !self.changes_state()
    }

    /// Whether the route changes state and so needs an idempotency key.
    pub const fn changes_state(self) -> bool {
        matches!(self.contract().effect, Effect::Changes)
    }
}

/// GET routes of the public listener.
pub const PUBLIC: &[&str] = &[
    "/v1/log/checkpoint",
    "/v1/log/tile/{path}",
    "/v1/log/proof/{index}",
    "/v1/log/consistency/{old}/{new}",
    "/v1/types",
    "/v1/open",
    "/v1/open/{class}/{order}",
    "/v1/trust-bundle",
    "/.well-known/authzen-configuration",
    "/openapi.json",
];

/// GET routes of the admin listener.
pub const ADMIN: &[&str] = &["/health", "/ready", "/metrics"];
